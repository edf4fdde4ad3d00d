"""Trained runs as systems of the evaluation: encoders in float32, and the teacher."""

from __future__ import annotations

import torch

import bundle
import decode
import prepare
import settings
import teacher


class Run:
    """A run of train.py in PyTorch, calibrated in the same way as the bundle."""

    def __init__(self, work, name, data):
        self.intents = [str(i) for i in data.intents]
        self.net, self.temperature, self.threshold = bundle.calibrated(work, name, data)

    @torch.no_grad()
    def logits(self, text):
        """Intent [intents] and tag [L, tags] logits."""
        ids = torch.tensor(prepare.FEATURES.ids(text))
        mask = torch.ones(1, len(ids), dtype=torch.bool)
        intent, tags, _, _ = self.net(ids, mask, torch.full((1,), bundle.K_DEFAULT), bundle.allocation(self.net, 1.0))
        return intent[0], tags

    def __call__(self, text, home):
        logits, tags = self.logits(text)
        confidence, best = torch.softmax(logits / self.temperature, -1).max(-1)
        intent = self.intents[best] if confidence >= self.threshold else settings.OUT
        slots = decode.slots(text, intent, [settings.TAGS[t] for t in tags.argmax(-1)], home or {})
        return decode.adapted(intent, slots.get("name"), home or {}), slots


class Ensemble:
    """The teacher: MiniLM and the character-aware encoders. It has neither tags nor a threshold."""

    def __init__(self, work, data):
        self.big = teacher.load_minilm(work, data)
        self.small = [teacher.load_encoder(work, name) for name in teacher.CHARACTERS]
        self.intents = [str(i) for i in data.intents]

    @torch.no_grad()
    def __call__(self, text, home):
        ids = torch.tensor(prepare.FEATURES.ids(text))
        total = torch.log_softmax(self.big([text])[0][0], -1)
        for net in self.small:
            intent = net(ids, torch.ones(1, len(ids), dtype=torch.bool), torch.full((1,), net.config.k_max))[0][0]
            total = total + torch.log_softmax(intent, -1) / len(self.small)
        return self.intents[int(total.argmax())], None
