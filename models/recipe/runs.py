"""Trained runs as systems of the evaluation: encoders in float32, and the teacher."""

from __future__ import annotations

import torch

import bundle
import decode
import prepare
import settings
import teacher


BATCH = 64


def batches(texts):
    """(texts, grams, mask) of those with words, those of like length together."""
    found = sorted(((text, prepare.FEATURES.ids(text)) for text in set(texts)), key=lambda pair: len(pair[1]))
    found = [pair for pair in found if pair[1]]
    for part in (found[i : i + BATCH] for i in range(0, len(found), BATCH)):
        mask = torch.zeros(len(part), len(part[-1][1]), dtype=torch.bool)
        for row, (_, ids) in enumerate(part):
            mask[row, : len(ids)] = True
        yield [text for text, _ in part], torch.tensor([word for _, ids in part for word in ids]), mask


class Run:
    """A run of train.py in PyTorch, calibrated in the same way as the bundle."""

    def __init__(self, work, name, data):
        self.intents = [str(i) for i in data.intents]
        self.net, self.temperature, self.threshold = bundle.calibrated(work, name, data)
        self.known = {}

    @torch.no_grad()
    def read(self, texts):
        """Reads sentences ahead, many at a time: it is not timed."""
        for part, grams, mask in batches(texts):
            intent, tags, _, _ = self.net(grams, mask, torch.full((len(part),), bundle.K_DEFAULT), bundle.allocation(self.net, 1.0))
            self.known.update(zip(part, zip(intent, tags.argmax(-1).split(mask.sum(1).tolist()))))

    def __call__(self, text, home):
        if text not in self.known:
            return settings.OUT, {}
        logits, tags = self.known[text]
        confidence, best = torch.softmax(logits / self.temperature, -1).max(-1)
        intent = self.intents[best] if confidence >= self.threshold else settings.OUT
        slots = decode.slots(text, intent, [settings.TAGS[t] for t in tags], home or {})
        return decode.adapted(intent, slots.get("name"), home or {}), slots


class Ensemble:
    """The teacher: MiniLM and the character-aware encoders. It has neither tags nor a threshold."""

    def __init__(self, work, data):
        self.big = teacher.load_minilm(work, data)
        self.small = [teacher.load_encoder(work, name) for name in teacher.CHARACTERS]
        self.intents = [str(i) for i in data.intents]
        self.known = {}

    @torch.no_grad()
    def read(self, texts):
        """Reads sentences ahead, many at a time."""
        for part, grams, mask in batches(texts):
            total = torch.log_softmax(self.big(part)[0], -1)
            for net in self.small:
                intent = net(grams, mask, torch.full((len(part),), net.config.k_max))[0]
                total = total + torch.log_softmax(intent, -1) / len(self.small)
            self.known.update(zip(part, (self.intents[best] for best in total.argmax(-1))))

    def __call__(self, text, home):
        return self.known.get(text, settings.OUT), None
