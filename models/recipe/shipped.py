"""The bundle in onnxruntime, as the daemon runs it; needs no PyTorch."""

from __future__ import annotations

import tomllib

import numpy as np
import onnxruntime

import decode
import prepare
import settings


def session(folder, model=None):
    """The bundle's graph in onnxruntime; `model`: its bytes, if not the file's."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    if model is not None:
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(folder))
    return onnxruntime.InferenceSession(model or str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"])


def feeds(run, ids, budget):
    """The inputs of one sentence."""
    made = {"ids": np.array(ids, np.int64), "budget": np.array([budget], np.float32)}
    return {i.name: made[i.name] for i in run.get_inputs()}


def answer(run, ids, budget, temperature, threshold, intents):
    """(intent, confidence, intent logits, tag numbers, k) of one sentence, as the daemon does it."""
    logits, tags, *k = run.run(None, feeds(run, ids, budget))
    scaled = np.exp((logits - logits.max()) / temperature)
    best, confidence = int(logits.argmax()), float((scaled / scaled.sum()).max())
    intent = intents[best] if confidence >= threshold else settings.OUT
    return intent, confidence, logits, tags.argmax(-1), float(k[0][0]) if k else None


class Bundle:
    """Answers of the shipped model; slots by decode.py."""

    def __init__(self, folder, budget=1.0):
        self.manifest = tomllib.loads((folder / "manifest.toml").read_text())["intent"]
        self.run, self.budget = session(folder), budget

    def __call__(self, text, home):
        ids = prepare.FEATURES.ids(text)
        if not ids:
            return settings.OUT, {}
        m = self.manifest
        intent, _, _, tags, _ = answer(self.run, ids, self.budget, m["temperature"], m["threshold"], m["intents"])
        slots = decode.slots(text, intent, [m["tags"][t] for t in tags], home or {})
        return decode.adapted(intent, slots.get("name"), home or {}), slots
