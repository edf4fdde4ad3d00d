"""The bundle in onnxruntime, as the daemon runs it; needs no PyTorch."""

from __future__ import annotations

import tomllib

import numpy as np
import onnx
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

    def answer(self, ids):
        """The model's answer to one sentence, as `answer` gives it."""
        m = self.manifest
        return answer(self.run, ids, self.budget, m["temperature"], m["threshold"], m["intents"])

    def __call__(self, text, home):
        ids = prepare.FEATURES.ids(text)
        if not ids:
            return settings.OUT, {}
        intent, _, _, tags, _ = self.answer(ids)
        slots = decode.slots(text, intent, [self.manifest["tags"][t] for t in tags], home or {})
        return decode.adapted(intent, slots.get("name"), home or {}), slots


class Weights:
    """Bytes of the graph's constants: those of a row of the n-gram table, of one expert of every layer, of all else."""

    def __init__(self, folder):
        graph = onnx.load(str(folder / "model.onnx"), load_external_data=False).graph
        sizes = {t.name: int(np.prod(t.dims)) * onnx.helper.tensor_dtype_to_np_dtype(t.data_type).itemsize for t in graph.initializer}
        tables = {n.input[0] for n in graph.node if n.op_type == "Gather" and n.input[1] == "ids"}
        routed = [set(n.input) & set(sizes) for n in graph.node if n.op_type == "QMoE"]
        dims = {t.name: t.dims for t in graph.initializer}
        self.total = sum(sizes.values())
        self.row = sum(sizes[name] // dims[name][0] for name in tables)
        self.expert = sum(sizes[name] / dims[name][0] for names in routed for name in names)
        self.rest = self.total - sum(sizes[name] for name in tables.union(*routed))

    def touched(self, ids, k) -> float:
        """Bytes that one sentence needs with k experts."""
        return self.row * len({i for word in ids for i in word if i}) + k * self.expert + self.rest
