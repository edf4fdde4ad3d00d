#!/usr/bin/env python3
"""Writes the bundle tests/data/bundles/intent: a tiny model of task `intent`.

    python tests/vectors/generate_intent.py

Its numbers are random, so its answers mean nothing; its graph has the inputs, outputs and
operators of a real one (docs/bundle.md), and onnxruntime says what its answers are. The same
versions write the same bytes every time.
"""

from __future__ import annotations

import hashlib
import json
import pathlib

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper

from generate import quantize

FOLDER = pathlib.Path(__file__).resolve().parents[1] / "data/bundles/intent"
ALIGN = 16384  # of tensors in experts.bin
BLOCK = 32

WIDTH, HIDDEN, EXPERTS, K_MAX = 32, 32, 4, 2
WORDS, NGRAM_MIN, NGRAM_MAX, NGRAMS, BUCKETS = 16, 2, 3, 8, 256
INTENTS = ["HassTurnOn", "HassTurnOff", "HassLightSet", "HassGetState", "out_of_scope"]
TAGS = ["O", "B-name", "I-name", "B-area", "I-area", "B-brightness", "I-brightness"]
TEMPERATURE, THRESHOLD = 0.5, 0.3
SENTENCES = [
    "turn on the kitchen light",
    "Turn off everything, please!",
    "set the lamp to 40%",
    "it's 21.5 degrees",
    "ÄÖÜ straße d\u2019Angelo 1,000",
    "is the door of the garage open",
    "x",
    "a sentence of more words than are taken, because nobody says so much at once to a light or two",
]
LOGIT_GAP = 0.15  # how far the best intent and tag must lead: tests round differently


def words(text):
    """As docs/bundle.md says, and src/pipeline/intent/features.rs does."""
    found, at = [], 0
    text = text.replace("\u2019", "'")
    while at < len(text):
        start = at
        at += 1
        if text[start] in "%°":
            found.append(text[start])
        elif text[start].isalnum():
            while at < len(text):
                before, here, after = text[at - 1], text[at], text[at + 1 : at + 2]
                joins = here == "'" and before.isalnum() and after.isalnum()
                joins |= here in ".," and (before + after).isascii() and before.isdigit() and after.isdigit()
                if not (here.isalnum() or joins):
                    break
                at += 1
            found.append(text[start:at].lower())
    return found[:WORDS]


def word_ids(word):
    """The ids of a word's n-grams, padded with 0."""
    framed = f"<{word}>"
    grams = [framed] + [
        framed[i : i + n]
        for n in range(NGRAM_MIN, NGRAM_MAX + 1)
        for i in range(len(framed) - n + 1)
        if n < len(framed)
    ]
    ids = [1 + fnv1a32(gram.encode()) % (BUCKETS - 1) for gram in grams[:NGRAMS]]
    return ids + [0] * (NGRAMS - len(ids))


def fnv1a32(data):
    value = 0x811C9DC5
    for byte in data:
        value = ((value ^ byte) * 0x01000193) & 0xFFFFFFFF
    return value


def build(rng):
    """The model, and the names of the tensors that go to experts.bin."""
    nodes, constants, outside = [], [], []

    def const(name, array):
        constants.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def add(kind, inputs, output, domain="", **attributes):
        nodes.append(helper.make_node(kind, inputs, [output], name=output, domain=domain, **attributes))
        return output

    def weights(*shape):
        return rng.standard_normal(shape) / np.sqrt(shape[-1])

    def linear(x, name, n, k, output):
        codes, scales, _ = quantize(weights(n, k), 8, BLOCK, False, False)
        inputs = [x, const(f"{name}.codes", codes.reshape(n, -1, BLOCK)), const(f"{name}.scales", scales.astype(np.float32).reshape(-1))]
        return add("MatMulNBits", inputs, output, "com.microsoft", K=k, N=n, bits=8, block_size=BLOCK, accuracy_level=4)

    table = rng.integers(-127, 128, (BUCKETS, WIDTH), np.int8)
    table[0] = 0
    rows = add("Cast", [add("Gather", [const("table", table), "ids"], "codes", axis=0)], "rows", to=onnx.TensorProto.FLOAT)
    x = add("ReduceSum", [rows, const("axis", np.array([1]))], "sums", keepdims=0)
    norm = [x, const("norm.weight", np.ones(WIDTH, np.float32)), const("norm.bias", np.zeros(WIDTH, np.float32))]
    x = add("LayerNormalization", norm, "x", axis=-1)
    # budget <= 0.5: the second expert gets weight 0.
    affinity = add("Sigmoid", [add("MatMul", [x, const("router", 3 * weights(WIDTH, EXPERTS).astype(np.float32))], "router_logits")], "affinity")
    nodes.append(helper.make_node("TopK", [affinity, const("k_max", np.array([K_MAX]))], ["best", "at"], name="top", axis=-1))
    wide = add("Greater", ["budget", const("half", np.array([0.5], np.float32))], "is_wide")
    k = add("Add", [add("Cast", [wide], "wide", to=onnx.TensorProto.FLOAT), const("one", np.array([1], np.float32))], "k")
    first = add("Equal", [const("ranks", np.arange(1, K_MAX + 1, dtype=np.float32)), k], "is_last")
    last = add("Mul", ["best", add("Cast", [first], "last", to=onnx.TensorProto.FLOAT)], "last_best")
    bound = add("ReduceSum", [last, "axis"], "bound", keepdims=1)
    kept = add("Cast", [add("GreaterOrEqual", [affinity, bound], "is_kept")], "kept", to=onnx.TensorProto.FLOAT)
    weight = add("Mul", [affinity, kept], "weight")
    inputs = [x, affinity]
    for name, n, width in (("fc1", 2 * HIDDEN, WIDTH), ("fc2", WIDTH, HIDDEN)):
        codes, scales, _ = quantize(weights(EXPERTS, n, width), 8, BLOCK, False, False)
        inputs += [const(f"{name}.codes", codes), const(f"{name}.scales", scales.astype(np.float32)), ""]
        outside.append(f"{name}.codes")
    moe = add("QMoE", inputs + [""] * 6 + [weight], "moe", "com.microsoft", k=K_MAX, activation_type="swiglu",
              activation_alpha=1.0, activation_beta=0.0, swiglu_fusion=1, normalize_routing_weights=1,
              expert_weight_bits=8, block_size=BLOCK)  # fmt: skip
    x = add("Add", [x, moe], "y")
    mean = add("ReduceMean", [x, const("axis0", np.array([0]))], "mean", keepdims=1)
    logits = linear(mean, "intent", len(INTENTS), WIDTH, "intent_rows")
    add("Reshape", [logits, const("flat", np.array([-1]))], "intent_logits")
    linear(x, "tag", len(TAGS), WIDTH, "tag_logits")

    def value(name, kind, shape):
        return helper.make_tensor_value_info(name, kind, shape)

    real = onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        nodes, "intent",
        [value("ids", onnx.TensorProto.INT64, ["words", NGRAMS]), value("budget", real, [1])],
        [value("intent_logits", real, [len(INTENTS)]), value("tag_logits", real, ["words", len(TAGS)]), value("k", real, [1])],
        constants,
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, producer_name="moed-vectors", ir_version=9), outside


def save(model, outside):
    """Writes model.onnx and experts.bin."""
    data = bytearray()
    for tensor in model.graph.initializer:
        if tensor.name in outside:
            data.extend(bytes(-len(data) % ALIGN))
            entries = {"location": "experts.bin", "offset": len(data), "length": len(tensor.raw_data)}
            for key, entry in entries.items():
                tensor.external_data.add(key=key, value=str(entry))
            data.extend(tensor.raw_data)
            tensor.ClearField("raw_data")
            tensor.data_location = onnx.TensorProto.EXTERNAL
    (FOLDER / "experts.bin").write_bytes(data)
    (FOLDER / "model.onnx").write_bytes(model.SerializeToString(deterministic=True))


def lead(logits):
    """How far the best of each row is ahead, at least."""
    best = np.sort(np.atleast_2d(logits), axis=-1)
    return (best[:, -1] - best[:, -2]).min()


def golden():
    """The answers of onnxruntime, and how clear they are."""
    session = onnxruntime.InferenceSession(str(FOLDER / "model.onnx"), providers=["CPUExecutionProvider"])
    cases, leads = [], []
    for i, text in enumerate(SENTENCES):
        ids, budget = [word_ids(word) for word in words(text)], float(i % 2)
        feeds = {"ids": np.array(ids, np.int64), "budget": np.array([budget], np.float32)}
        intents, tags = session.run(["intent_logits", "tag_logits"], feeds)
        leads += [lead(intents), lead(tags)]
        scaled = np.exp((intents - intents.max()) / TEMPERATURE)
        confidence = float(scaled.max() / scaled.sum())
        leads.append(10 * abs(confidence - THRESHOLD))
        intent = INTENTS[intents.argmax()] if confidence >= THRESHOLD else "out_of_scope"
        cases.append({
            "text": text, "ids": ids, "budget": budget, "intent": intent, "tags": [TAGS[t] for t in tags.argmax(-1)],
            "confidence": round(confidence, 5), "intent_logits": [round(float(x), 5) for x in intents],
        })  # fmt: skip
    return cases, min(leads)


def manifest():
    """Of all files that are there."""
    quoted = json.dumps
    lines = [
        "format = 1", 'name = "intent-tiny"', 'version = "0.1.0"', 'task = "intent"', 'model = "model.onnx"',
        'licence = "MIT OR Apache-2.0"', 'provenance = "Random numbers: tests/vectors/generate_intent.py."',
        'language = "en"', "", "[k]", "min = 1", f"max = {K_MAX}", f"default = {K_MAX}", "", "[memory]",
        "resident_bytes = 400000", "", "[intent]", f"words_max = {WORDS}", f"ngram_min = {NGRAM_MIN}",
        f"ngram_max = {NGRAM_MAX}", f"ngrams_max = {NGRAMS}", f"buckets = {BUCKETS}", f"intents = {quoted(INTENTS)}",
        f"tags = {quoted(TAGS)}", f"temperature = {TEMPERATURE}", f"threshold = {THRESHOLD}",
    ]  # fmt: skip
    for path in sorted(FOLDER.iterdir()):
        if path.name != "manifest.toml":
            data = path.read_bytes()
            digest = hashlib.sha256(data).hexdigest()
            lines += ["", "[[files]]", f"name = {quoted(path.name)}", f"bytes = {len(data)}", f'sha256 = "{digest}"']
    (FOLDER / "manifest.toml").write_text("\n".join(lines) + "\n")


def main():
    FOLDER.mkdir(parents=True, exist_ok=True)
    for seed in range(3000):
        save(*build(np.random.default_rng(seed)))
        cases, clear = golden()
        if clear >= LOGIT_GAP and len({case["intent"] for case in cases}) > 1:
            break
    else:
        raise SystemExit("no seed gives answers that are clear enough")
    text = ",\n ".join(json.dumps(case, ensure_ascii=False) for case in cases)
    (FOLDER / "golden.json").write_text(f"[{text}]\n")
    manifest()
    print(f"{FOLDER}: seed {seed}, {len(cases)} cases, lead {clear:.2f}")


if __name__ == "__main__":
    main()
