#!/usr/bin/env python3
"""Holds the operator test vectors against onnxruntime.

Runs each model of tests/data/operators on onnxruntime's CPU provider and
compares with the expected outputs at the tolerance given in index.json. A
model not marked runs_in_onnxruntime is first rewritten into one of the same
meaning that onnxruntime can run; what becomes of swiglu_fusion 0 and 2, 2-bit
weights and float16 MoE is in `rewrite`. Prints one line for each group of
cases with its worst error (as a share of the tolerance, and relative to the
root mean square of the output), then `N passed, M failed`; exits with 1 if any
failed.

    python tests/vectors/check_onnxruntime.py [-v] [--only TEXT]
"""

from __future__ import annotations

import argparse
import json
import pathlib
import re
import sys

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper

from generate import MATMUL_SLOTS, MOE_SLOTS, QMOE_SLOTS, make_model, node_inputs
from oracle import pack_bits, unpack_bits

FOLDER = pathlib.Path(__file__).resolve().parents[1] / "data" / "operators"


def load_values(path):
    graph = onnx.load(path).graph
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}


def alternate(slots, bits, block):
    """Lays the rows of fc1 (and of fc3) out as swiglu_fusion 1 wants them."""
    rows = slots["fc1_experts_weights"].shape[1]
    packed = [] if block else [f"{fc}_zero_points" for fc in ("fc1", "fc3") if f"{fc}_zero_points" in slots]
    for slot in packed:
        slots[slot] = unpack_bits(slots[slot], bits, rows)
    for slot in [slot for slot in slots if slot.startswith("fc1_")]:
        gates_first = slots[slot]
        if (linear := slots.pop(slot.replace("fc1", "fc3"), None)) is not None:
            gates_first = np.concatenate([gates_first, linear], axis=1)
        half = gates_first.shape[1] // 2
        slots[slot] = gates_first[:, np.arange(2 * half).reshape(2, half).T.reshape(-1)]
    if packed:
        slots["fc1_zero_points"] = pack_bits(slots["fc1_zero_points"], bits)


def widen(slots, weights, scales, zero_points):
    """Stores 2-bit blocks in 4 bits: the same integers and zero points."""
    packed = slots[weights]
    slots[weights] = pack_bits(unpack_bits(packed, 2, packed.shape[-1] * 4), 4)
    shape = slots[scales].shape
    zeros = np.full(shape, 2, np.uint8)
    if zero_points in slots:
        zeros = unpack_bits(slots[zero_points], 2, shape[-1])
    slots[zero_points] = pack_bits(zeros, 4)


def rewrite(model):
    """A model of the same meaning, in float32, that onnxruntime can run.

    swiglu_fusion 2 and 0 become 1, by moving rows of fc1 and fc3; without
    swiglu the attribute is dropped. Block-wise 2-bit weights are stored as 4
    bits. float16 becomes float32.
    """
    (node,) = model.graph.node
    order = {"MoE": MOE_SLOTS, "QMoE": QMOE_SLOTS, "MatMulNBits": MATMUL_SLOTS}[node.op_type]
    arrays = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    slots = {slot: arrays[name] for slot, name in zip(order, node.input) if name in arrays}
    names = {slot: name for slot, name in zip(order, node.input) if name and name not in arrays}
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    block = attributes.get("block_size", 0)
    bits_name = "bits" if node.op_type == "MatMulNBits" else "expert_weight_bits"
    bits = attributes.get(bits_name, 4)

    if attributes.get("activation_type") != b"swiglu":
        attributes.pop("swiglu_fusion", None)
    elif attributes.get("swiglu_fusion", 0) != 1:
        attributes["swiglu_fusion"] = 1
        alternate(slots, bits, block)
    if node.op_type != "MoE" and bits == 2 and block:
        attributes[bits_name] = 4
        if node.op_type == "MatMulNBits":
            widen(slots, "B", "scales", "zero_points")
        else:
            for layer in ("fc1", "fc2"):
                widen(slots, f"{layer}_experts_weights", f"{layer}_scales", f"{layer}_zero_points")
    slots = {slot: a.astype(np.float32) if a.dtype == np.float16 else a for slot, a in slots.items()}

    names |= {slot: slot for slot in slots}
    new = helper.make_node(node.op_type, node_inputs(order, names), ["y"], domain=node.domain, **attributes)
    inputs = {i.name: (np.float32, None) for i in model.graph.input}
    return make_model([new], inputs, {"y": (np.float32, None)}, slots)


def run(model, values):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    types = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
    feeds = {i.name: values[i.name].astype(types[i.type]) for i in session.get_inputs()}
    return dict(zip(names, session.run(names, feeds)))


def error(got, expected):
    """The largest difference, relative to the root mean square of `expected`."""
    if got.shape != expected.shape:
        raise ValueError(f"got {got.shape}, expected {expected.shape}")
    got, expected = got.astype(np.float64), expected.astype(np.float64)
    worst = np.abs(got - expected).max()
    return worst / np.sqrt((expected**2).mean()) if np.isfinite(worst) else np.inf


def group_of(entry):
    """The part of a name that says operator and format, and the oracle used."""
    match = re.match(
        r"lfm2-\w+|moegrouprouter|(qmoe|matmulnbits)-\dbit-[a-z]+\d*(-zp)?|[a-z]+", entry["name"]
    )
    half = " f16" if "f16" in entry["name"] else ""
    how = "" if entry["runs_in_onnxruntime"] else ", rewritten"
    return f"{match[0]}{half} ({entry['activations']} activations{how})"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-v", "--verbose", action="store_true", help="a line for every case")
    parser.add_argument("--only", metavar="TEXT", default="", help="only the cases whose name contains TEXT")
    arguments = parser.parse_args()

    entries = json.loads((FOLDER / "index.json").read_text())
    entries = [entry for entry in entries if arguments.only in entry["name"]]
    groups, passed, failed = {}, 0, 0
    for entry in entries:
        path = FOLDER / f"{entry['name']}.onnx"
        values = load_values(path.with_suffix(".io.onnx"))
        model = onnx.load(path)
        try:
            if not entry["runs_in_onnxruntime"]:
                model = rewrite(model)
            outputs = run(model.SerializeToString(), values)
            relative = max(error(got, values[name]) for name, got in outputs.items())
        except Exception as problem:  # onnxruntime's exceptions have no common base of their own
            print(f"FAILED {entry['name']}: {str(problem).splitlines()[0]}")
            failed += 1
            continue
        if arguments.verbose:
            print(f"{entry['name']}: {relative:.1e} of {entry['tolerance']:.0e}")
        if relative > entry["tolerance"]:
            print(f"FAILED {entry['name']}: {relative:.1e} is over {entry['tolerance']:.0e}")
            failed += 1
        else:
            passed += 1
        groups.setdefault(group_of(entry), []).append((relative / entry["tolerance"], relative))

    rewritten = sum(not entry["runs_in_onnxruntime"] for entry in entries)
    print(f"onnxruntime {onnxruntime.__version__}; {rewritten} of {len(entries)} models rewritten for it")
    for group, errors in sorted(groups.items()):
        share, relative = max(errors)
        print(
            f"{group:57} {len(errors):3} cases, worst {share:.4f} of the tolerance, {relative:.1e} relative"
        )
    print(f"{passed} passed, {failed} failed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
