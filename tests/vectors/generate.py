#!/usr/bin/env python3
"""Writes the operator test vectors that moed's Rust tests read.

    python tests/vectors/generate.py            everything
    python tests/vectors/generate.py --only zp  the cases whose name contains "zp"

Into tests/data/operators go, for each case, NAME.onnx (the operator's node,
its weights as initializers) and NAME.io.onnx (a graph of nothing but
initializers: one for each graph input of the model and one for each output,
under the same names; the first output is `y`), and index.json. Into
tests/data/refused go models that moed must refuse, with what the message has
to contain.

Every case draws its numbers from a seed made of its name, so that adding one
changes no other. Where a case's outcome would hang on float32 noise (two
experts with nearly the same logit, an activation that rounds to 8 bits either
way) the next seed is taken. The expected outputs come from oracle.py.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import pathlib
import zlib
from collections.abc import Callable

import numpy as np
import onnx
from onnx import helper, numpy_helper

import oracle

ROOT = pathlib.Path(__file__).resolve().parents[1] / "data"
DOMAIN = "com.microsoft"

# Tolerances, as the largest error over the root mean square of the output.
EXACT = 1e-5  # float32 weights
INT8 = 2e-5  # both sides round the activations to 8 bits
QUANTIZED = 3e-4  # quantized weights: the engine keeps 16-bit activations
HALF = 4e-3  # float16 in and out

# What a seed must keep clear of: see the note on seeds above.
LOGIT_GAP = 1e-2
ROUNDING_GAP = 1e-3
SEEDS = 300

MOE_SLOTS = [
    "input", "router_probs", "fc1_experts_weights", "fc1_experts_bias",
    "fc2_experts_weights", "fc2_experts_bias", "fc3_experts_weights", "fc3_experts_bias",
]  # fmt: skip
QMOE_SLOTS = [
    "input", "router_probs", "fc1_experts_weights", "fc1_scales", "fc1_experts_bias",
    "fc2_experts_weights", "fc2_scales", "fc2_experts_bias",
    "fc3_experts_weights", "fc3_scales", "fc3_experts_bias",
    "fc1_zero_points", "fc2_zero_points", "fc3_zero_points", "router_weights",
    "fc1_global_scale", "fc2_global_scale", "fc1_act_scale", "fc2_act_scale",
    "fc1_act_block_scale", "fc2_act_block_scale",
]  # fmt: skip
MATMUL_SLOTS = ["A", "B", "scales", "zero_points", "g_idx", "bias"]
ROUTER_SLOTS = ["logits", "expert_bias", "projection_weight"]


@dataclasses.dataclass
class Case:
    """A model, one set of inputs and outputs, and how to compare."""

    name: str
    operator: str
    model: onnx.ModelProto
    values: dict[str, np.ndarray]
    tolerance: float
    activations: str = "f32"
    runs_in_onnxruntime: bool = True
    note: str = ""


# ------------------------------------------------------------------ ONNX models


def onnx_type(dtype):
    return helper.np_dtype_to_tensor_dtype(np.dtype(dtype))


def make_model(nodes, inputs, outputs, initializers, domains=(DOMAIN,)):
    """`inputs` and `outputs`: {name: (dtype, shape)}; a text in a shape is a symbol."""
    graph = helper.make_graph(
        nodes,
        "vectors",
        [helper.make_tensor_value_info(n, onnx_type(d), s) for n, (d, s) in inputs.items()],
        [helper.make_tensor_value_info(n, onnx_type(d), s) for n, (d, s) in outputs.items()],
        [numpy_helper.from_array(np.ascontiguousarray(a), n) for n, a in initializers.items()],
    )
    opsets = [helper.make_opsetid("", 17)] + [helper.make_opsetid(d, 1) for d in domains]
    model = helper.make_model(graph, opset_imports=opsets, producer_name="moed-vectors")
    model.ir_version = 9
    return model


def make_io(values):
    """A model whose graph holds only the initializers in `values`."""
    return make_model([], {}, {}, values, domains=())


def node_inputs(slots, names, keep=0):
    """Node inputs in slot order; absent ones empty, dropped past the last (or `keep`)."""
    inputs = [names.get(slot, "") for slot in slots]
    while len(inputs) > keep and inputs and not inputs[-1]:
        inputs.pop()
    return inputs


# ------------------------------------------------------------------- quantizers


def quantize(w, bits, block, asymmetric, signed):
    """Quantizes [.., N, K] along K: (integers, scales [.., N, blocks], zero points or None).

    Three ways, as the exporters have: asymmetric (a zero point for each
    block); symmetric with a positive scale; and symmetric with a scale of
    either sign, that puts the element of largest magnitude at the smallest
    integer.
    """
    levels, middle = (1 << bits) - 1, 1 << (bits - 1)
    blocks = w.shape[-1] // block if block else 1
    parts = w.reshape(*w.shape[:-1], blocks, -1)
    zero_points = None
    zero = np.full(parts.shape[:-1], middle)
    if asymmetric:
        low = np.minimum(parts.min(-1), 0)
        high = np.maximum(parts.max(-1), 0)
        scales = (high - low) / levels
        zero = np.clip(np.rint(-low / scales), 0, levels).astype(int)
        zero_points = zero.astype(np.uint8)
    elif signed:
        at = np.abs(parts).argmax(-1)[..., None]
        scales = np.take_along_axis(parts, at, -1)[..., 0] / -middle
    else:
        scales = np.abs(parts).max(-1) / (middle - 0.5)
    scales = np.where(scales == 0, 1, scales)
    integers = np.clip(np.rint(parts / scales[..., None]) + zero[..., None], 0, levels)
    return integers.astype(np.uint8).reshape(w.shape), scales, zero_points


# ------------------------------------------------------------------ MoE and QMoE


@dataclasses.dataclass
class Mixture:
    """One MoE or QMoE node: its configuration and the shape of its data."""

    op: str = "QMoE"
    experts: int = 4
    hidden: int = 64
    inter: int = 32
    k: int = 2
    rows: int = 4
    act: str = "silu"
    normalize: int = 0
    bits: int = 8
    block: int = 0  # 0: one scale a row
    zero_points: bool = False
    signed: bool = False
    bias: bool = False
    router_weights: bool = False
    fusion: int = 1  # as used; written only for swiglu, or if stray_fusion
    stray_fusion: bool = False
    alpha: float = 1.0
    beta: float = 0.0
    limit: float | None = None
    batch: int = 0  # not 0: rank 3, [batch, rows, hidden]
    half: bool = False
    accuracy_level: int | None = None
    keep_inputs: int = 0  # trailing empty names are kept up to this many
    defaults: bool = False  # leave out every attribute that has its default
    tweak: Callable | None = None  # changes x, router, router_weights in place
    any_gap: bool = False  # the case is about ties
    note: str = ""
    runs: bool = True
    tolerance: float | None = None

    @property
    def dtype(self):
        return np.float16 if self.half else np.float32

    @property
    def int8(self):
        """Whether onnxruntime (and moed) round this node's activations to 8 bits."""
        return self.op == "QMoE" and self.block > 0 and (self.bits == 8 or self.accuracy_level == 4)


def mixture_data(spec: Mixture, seed: int):
    """({graph input: array}, {slot: initializer}) for one node."""
    rng = np.random.default_rng(seed)
    rows = spec.rows * max(spec.batch, 1)
    shape = (spec.batch, spec.rows, spec.hidden) if spec.batch else (rows, spec.hidden)
    feeds = {
        "x": rng.standard_normal(shape).astype(spec.dtype),
        "router": (2 * rng.standard_normal((rows, spec.experts))).astype(spec.dtype),
    }
    if spec.router_weights:
        feeds["router_weights"] = rng.uniform(0.05, 1, (rows, spec.experts)).astype(spec.dtype)
    if spec.tweak:
        spec.tweak(feeds)

    fused = 2 if spec.act == "swiglu" and spec.fusion else 1
    layers = {"fc1": (fused * spec.inter, spec.hidden), "fc2": (spec.hidden, spec.inter)}
    if spec.act == "swiglu" and not spec.fusion:
        layers["fc3"] = (spec.inter, spec.hidden)
    slots = {}
    for layer, (n, features) in layers.items():
        w = rng.standard_normal((spec.experts, n, features)) / np.sqrt(features)
        if spec.op == "MoE":
            slots[f"{layer}_experts_weights"] = w.astype(spec.dtype)
        else:
            if spec.zero_points:
                w = w + 0.04
            integers, scales, zeros = quantize(w, spec.bits, spec.block, spec.zero_points, spec.signed)
            slots[f"{layer}_experts_weights"] = oracle.pack_bits(integers, spec.bits)
            slots[f"{layer}_scales"] = (scales if spec.block else scales[..., 0]).astype(spec.dtype)
            if zeros is not None:
                zeros = zeros if spec.block else zeros[..., 0]
                slots[f"{layer}_zero_points"] = oracle.pack_bits(zeros, spec.bits)
        if spec.bias:
            slots[f"{layer}_experts_bias"] = (0.3 * rng.standard_normal((spec.experts, n))).astype(spec.dtype)
    return feeds, slots


def mixture_routes(spec: Mixture, router, router_weights=None):
    if spec.op == "MoE":
        return [oracle.route_moe(row, spec.k, spec.normalize) for row in router]
    weights = router_weights if router_weights is not None else [None] * len(router)
    return [oracle.route_qmoe(r, spec.k, spec.normalize, w) for r, w in zip(router, weights)]


def mixture_output(spec: Mixture, feeds, slots, rounding=None):
    """The expected output of one node, in float64."""

    def layer(name, features):
        weights = slots.get(f"{name}_experts_weights")
        if weights is None:
            return None
        if spec.op == "QMoE":
            zeros = slots.get(f"{name}_zero_points")
            weights = oracle.dequantize_experts(
                weights, slots[f"{name}_scales"], zeros, spec.bits, spec.block, features
            )
        return weights, slots.get(f"{name}_experts_bias")

    return oracle.mixture(
        feeds["x"],
        mixture_routes(spec, feeds["router"], feeds.get("router_weights")),
        layer("fc1", spec.hidden),
        layer("fc2", spec.inter),
        layer("fc3", spec.hidden),
        spec.act,
        spec.fusion,
        spec.alpha,
        spec.beta,
        spec.limit,
        rounding,
        spec.block,
    )


def mixture_attributes(spec: Mixture):
    attributes = {
        "k": spec.k,
        "activation_type": spec.act,
        "normalize_routing_weights": spec.normalize,
    }
    if spec.act == "swiglu" or spec.stray_fusion:
        attributes["swiglu_fusion"] = spec.fusion
    if spec.act == "swiglu":
        attributes["activation_alpha"] = float(spec.alpha)
        attributes["activation_beta"] = float(spec.beta)
        if spec.limit is not None:
            attributes["swiglu_limit"] = float(spec.limit)
    if spec.op == "QMoE":
        attributes["expert_weight_bits"] = spec.bits
        if spec.block:
            attributes["block_size"] = spec.block
        if spec.accuracy_level is not None:
            attributes["accuracy_level"] = spec.accuracy_level
    if spec.defaults:
        usual = {
            "k": 1, "activation_type": "relu", "normalize_routing_weights": 0, "swiglu_fusion": 0,
            "activation_alpha": 1.0, "activation_beta": 0.0, "expert_weight_bits": 4,
        }  # fmt: skip
        attributes = {n: v for n, v in attributes.items() if usual.get(n) != v}
    return attributes


def mixture_node(spec: Mixture, slots, names=None, attributes=None, output="y", name="moe", domain=DOMAIN):
    """`names` says how the node's variable inputs are called, slot by slot."""
    names = {"input": "x", "router_probs": "router"} | (names or {})
    if spec.router_weights:
        names.setdefault("router_weights", "router_weights")
    names |= {slot: slot for slot in slots if slot not in names}
    return helper.make_node(
        spec.op,
        node_inputs(MOE_SLOTS if spec.op == "MoE" else QMOE_SLOTS, names, spec.keep_inputs),
        [output],
        name=name,
        domain=domain,
        **(mixture_attributes(spec) | (attributes or {})),
    )


def mixture_inputs(spec: Mixture):
    shape = ["batch", "sequence", spec.hidden] if spec.batch else ["rows", spec.hidden]
    flat = "tokens" if spec.batch else "rows"
    inputs = {"x": (spec.dtype, shape), "router": (spec.dtype, [flat, spec.experts])}
    if spec.router_weights:
        inputs["router_weights"] = (spec.dtype, [flat, spec.experts])
    return inputs


def default_tolerance(spec: Mixture):
    if spec.tolerance:
        return spec.tolerance
    if spec.half:
        return HALF
    if spec.op == "MoE":
        return EXACT
    return INT8 if spec.int8 else QUANTIZED


def selection_gap(values, k):
    """The least distance, over rows, between the last one selected and the next."""
    if k >= values.shape[-1]:
        return np.inf
    order = np.sort(values.astype(np.float64), -1)[:, ::-1]
    return float((order[:, k - 1] - order[:, k]).min())


def seeds_for(name):
    start = zlib.crc32(name.encode())
    return (start + attempt for attempt in range(SEEDS))


def first_clear(name, attempt):
    """Runs `attempt(seed) -> (gap, rounding distance, result)` until both are clear."""
    best = None
    for seed in seeds_for(name):
        gap, nearest, result = attempt(seed)
        if gap < LOGIT_GAP:
            continue
        if nearest >= ROUNDING_GAP:
            return result
        if best is None or nearest > best[0]:
            best = (nearest, result)
    if best is None or best[0] < ROUNDING_GAP / 5:
        raise SystemExit(f"{name}: no seed keeps clear of a tie")
    return best[1]


def mixture_case(name: str, spec: Mixture) -> Case:
    def attempt(seed):
        feeds, slots = mixture_data(spec, seed)
        gap = np.inf if spec.any_gap else selection_gap(feeds["router"], spec.k)
        if gap < LOGIT_GAP:
            return gap, 0, None
        rounding = oracle.Rounding() if spec.int8 else None
        y = mixture_output(spec, feeds, slots, rounding).astype(spec.dtype)
        return gap, rounding.nearest if rounding else 0.5, (feeds, slots, y)

    feeds, slots, y = first_clear(name, attempt)
    inputs = mixture_inputs(spec)
    model = make_model([mixture_node(spec, slots)], inputs, {"y": (spec.dtype, inputs["x"][1])}, slots)
    return Case(
        name=name,
        operator=spec.op,
        model=model,
        values=feeds | {"y": y},
        tolerance=default_tolerance(spec),
        activations="int8" if spec.int8 else "f32",
        runs_in_onnxruntime=spec.runs,
        note=spec.note,
    )


# ------------------------------------------------------- changes to router inputs


def ties(feeds):
    """Whole rows of equal logits, and ties right at the edge of the selection."""
    router = feeds["router"]
    router[0] = 0.5
    router[1, :] = -3
    router[1, [0, 2, 3]] = 1.25
    router[2, :] = [2, -1, -1, -1] + [-4] * (router.shape[1] - 4)


def masked(feeds):
    """Logits of minus infinity and of -10000, as exported routers write them."""
    router = feeds["router"]
    router[0, 1:] = -np.inf
    router[1, [0, 2]] = -np.inf
    router[2, :2] = -10000
    router[3, 1:] = -10000


def masked_row(feeds):
    """A row whose logits are all minus infinity."""
    feeds["router"][1] = -np.inf


def odd_weights(feeds):
    """router_weights of zero, below the threshold and negative."""
    router, weights = feeds["router"], feeds["router_weights"]
    for row, (first, second) in enumerate([(0.0, 0.75), (-0.5, 1.25), (0.5, 5e-9), (-0.25, 0.0)]):
        best = np.argsort(router[row])[::-1]
        weights[row, best[0]] = first
        weights[row, best[1]] = second


def zero_weights(feeds):
    """The first row's router_weights are all zero."""
    feeds["router_weights"][0] = 0


def large(feeds):
    """Activations that reach into swiglu's limits and saturate sigmoid and tanh."""
    feeds["x"] *= 12


def zero_row(feeds):
    feeds["x"][1] = 0


# ------------------------------------------------------------------------ cases

NO_EXPERT = "all logits are -inf: no weight is above 0, and the row of the output is 0"
ACTIVATIONS = ["relu", "gelu", "silu", "identity", "swiglu"]
ALTERED = {"alpha": 1.702, "beta": 1.0}
FUSION_REFUSED = "onnxruntime's CPU provider takes swiglu_fusion 1 only"


def suffix(spec: Mixture):
    text = f"{spec.act}-k{spec.k}"
    return text + ("-bias" if spec.bias else "")


def format_name(bits, block, zero_points=False):
    return f"qmoe-{bits}bit-" + (f"block{block}" if block else "channel") + ("-zp" if zero_points else "")


def moe_specs():
    small = dict(op="MoE", hidden=20, inter=12)
    for act in ACTIVATIONS:
        for normalize in (0, 1):
            for k in (1, 2, 4):
                for bias in (False, True):
                    spec = Mixture(**small, act=act, normalize=normalize, k=k, bias=bias, experts=max(k, 3))
                    yield f"moe-{suffix(spec)}" + ("-normalized" if normalize else ""), spec

    def more(name, **fields):
        return f"moe-{name}", Mixture(**(small | fields))

    yield more("defaults", act="relu", k=1, defaults=True)
    yield more("odd-33x17", hidden=33, inter=17, act="gelu", bias=True)
    yield more("64x24", hidden=64, inter=24, experts=2)
    yield more("40x24-swiglu", hidden=40, inter=24, experts=2, act="swiglu", bias=True)
    yield more("rank3", batch=2, rows=3)
    yield more("one-row", rows=1, act="swiglu", bias=True, normalize=1)
    yield more("rows37", rows=37, k=2, experts=5, act="swiglu")
    yield more("k3-of-3", experts=3, k=3)
    yield more("one-expert", experts=1, k=1, act="relu")
    yield more("ties", tweak=ties, any_gap=True, experts=5, k=2, note="among equals the higher index wins")
    yield more("ties-normalized", tweak=ties, any_gap=True, experts=5, k=3, normalize=1)
    yield more("masked-logits", tweak=masked, any_gap=True, k=2, note="-inf and -10000")
    yield more("masked-logits-normalized", tweak=masked, any_gap=True, k=2, normalize=1, act="swiglu")
    yield more("masked-row", tweak=masked_row, any_gap=True, bias=True, note=NO_EXPERT)
    yield more("trailing-empty", keep_inputs=8, act="relu")
    yield more("swiglu-alpha-beta-limit", act="swiglu", bias=True, limit=0.7, **ALTERED)
    yield more("swiglu-limit-large", act="swiglu", limit=7.0, tweak=large, **ALTERED)
    yield more("gelu-large", act="gelu", tweak=large)
    yield more("silu-large", act="silu", tweak=large)
    yield more(
        "silu-stray-fusion", stray_fusion=True, runs=False,
        note="swiglu_fusion=1 means nothing without swiglu; onnxruntime then reads out of bounds",
    )  # fmt: skip
    for bias in (False, True):
        tail = "-bias" if bias else ""
        yield more(
            "swiglu-fusion2" + tail, act="swiglu", fusion=2, bias=bias, runs=False, note=FUSION_REFUSED
        )
        yield more("swiglu-fc3" + tail, act="swiglu", fusion=0, bias=bias, runs=False, note=FUSION_REFUSED)
    yield more(
        "swiglu-fc3-alpha-beta-limit", act="swiglu", fusion=0, bias=True, limit=0.7, normalize=1,
        runs=False, note=FUSION_REFUSED, **ALTERED,
    )  # fmt: skip
    no_half = dict(half=True, runs=False, note="onnxruntime's CPU provider has no float16 MoE")
    yield more("f16-silu", **no_half)
    yield more("f16-swiglu-bias", act="swiglu", bias=True, normalize=1, **no_half)
    yield more("f16-relu-rank3", act="relu", batch=1, **no_half)


# Sizes to go round, by block size: every one has rows of one block and rows of
# several, odd numbers of blocks among them.
SIZES = {
    0: [(40, 24), (48, 40), (36, 20)],
    16: [(48, 32), (32, 16), (48, 16)],
    32: [(64, 32), (32, 64), (96, 32), (32, 32)],
    64: [(128, 64), (64, 64)],
    128: [(128, 128)],
}
FULL = [(8, 0), (8, 32), (8, 16), (4, 0), (4, 32), (4, 16), (2, 0), (2, 32)]
VARIANTS = [
    ("silu", 1, False), ("silu", 2, True), ("gelu", 2, False), ("relu", 4, True),
    ("swiglu", 2, False), ("swiglu", 4, True), ("identity", 2, False),
]  # fmt: skip


def quantized(bits, block, zero_points=False, turn=0, **fields):
    hidden, inter = SIZES[block][turn % len(SIZES[block])]
    spec = Mixture(bits=bits, block=block, zero_points=zero_points, hidden=hidden, inter=inter)
    if block >= 64:
        spec.rows = 3
    spec = dataclasses.replace(spec, **fields)
    if block == 128 or (block == 64 and spec.hidden == 128):
        spec.experts = 2
    if bits == 2 and block:
        spec.runs = False
        spec.note = spec.note or "onnxruntime approximates block-wise 2-bit experts with lookup tables"
    return spec


def qmoe_specs():
    formats = [(b, s, z) for b in (8, 4, 2) for s in SIZES for z in (False, True)]
    for bits, block, zero_points in formats:
        base = format_name(bits, block, zero_points)
        variants = VARIANTS if (bits, block) in FULL else [("swiglu", 2, True)]
        if block == 64:
            variants = [("silu", 2, True), *variants]
        if block == 128:
            variants = [("silu", 2, True)]
        for turn, (act, k, bias) in enumerate(variants):
            spec = quantized(bits, block, zero_points, turn, act=act, k=k, bias=bias, experts=max(k, 3))
            yield f"{base}-{suffix(spec)}", spec

    def more(bits, block, tail, zero_points=False, **fields):
        fields = {"experts": max(fields.get("k", 2) + 1, 3)} | fields
        return f"{format_name(bits, block, zero_points)}-{tail}", quantized(
            bits, block, zero_points, **fields
        )

    # Routing.
    for normalize in (0, 1):
        tail = "-normalized" if normalize else ""
        yield more(
            8, 0, "k4" + tail, k=4, experts=5, normalize=normalize, note="normalize changes nothing here"
        )
        weighted = dict(router_weights=True, normalize=normalize)
        yield more(8, 0, "router-weights" + tail, k=4, experts=5, **weighted)
        yield more(4, 32, "router-weights-swiglu-bias" + tail, act="swiglu", bias=True, **weighted)
        yield more(8, 32, "router-weights" + tail, act="swiglu", turn=3, **weighted)
        yield more(
            8, 0, "router-weights-ties" + tail, experts=5, tweak=ties, any_gap=True,
            note="among equals the higher index wins", **weighted,
        )  # fmt: skip
        yield more(
            8, 0, "router-weights-zero-negative" + tail, tweak=odd_weights, bias=True,
            note="an expert whose weight is at most 1e-8 contributes nothing, not even its bias", **weighted,
        )  # fmt: skip
        yield more(8, 0, "router-weights-all-zero" + tail, tweak=zero_weights, bias=True, **weighted)
        yield more(8, 0, "router-weights-masked" + tail, tweak=masked, any_gap=True, k=1, **weighted)
    for k in range(1, 6):
        yield more(8, 32, f"k{k}-of-5", k=k, experts=5, turn=3)
    yield more(
        8, 0, "ties", tweak=ties, any_gap=True, experts=5, k=2, note="among equals the higher index wins"
    )
    yield more(4, 32, "ties-k3", tweak=ties, any_gap=True, experts=5, k=3)
    for bits, block in ((8, 0), (4, 32)):
        yield more(bits, block, "masked-row", tweak=masked_row, any_gap=True, bias=True, note=NO_EXPERT)
    yield more(8, 0, "masked-logits", tweak=masked, any_gap=True, note="-inf and -10000")
    yield more(8, 32, "masked-logits", tweak=masked, any_gap=True, act="swiglu", bias=True, turn=3)

    # Activations.
    altered = dict(act="swiglu", bias=True, **ALTERED)
    yield more(8, 0, "swiglu-alpha-beta-limit", limit=0.7, **altered)
    yield more(4, 32, "swiglu-alpha-beta-limit", limit=7.0, **altered)
    yield more(8, 32, "swiglu-alpha-beta-limit-large", limit=7.0, tweak=large, turn=3, **altered)
    yield more(8, 0, "gelu-large", act="gelu", tweak=large)
    yield more(
        8, 32, "zero-row", tweak=zero_row, act="swiglu", note="a row of zeros has no scale to divide by"
    )
    yield more(4, 0, "zero-row", tweak=zero_row)
    for bits, block in ((8, 0), (8, 32), (4, 32)):
        yield more(
            bits, block, "silu-stray-fusion", stray_fusion=True, runs=False,
            note="swiglu_fusion=1 means nothing without swiglu; onnxruntime then reads out of bounds",
        )  # fmt: skip
    for bits, block, zero_points in (
        (8, 0, False),
        (8, 32, True),
        (4, 0, True),
        (4, 32, False),
        (2, 16, True),
    ):
        for bias in (False, True):
            tail = "-bias" if bias else ""
            other = dict(
                zero_points=zero_points, act="swiglu", bias=bias, turn=1, runs=False, note=FUSION_REFUSED
            )
            yield more(bits, block, "swiglu-fusion2" + tail, fusion=2, **other)
            yield more(bits, block, "swiglu-fc3" + tail, fusion=0, **other)
    yield more(
        8, 0, "swiglu-fc3-alpha-beta-limit", zero_points=True, fusion=0, limit=0.7, router_weights=True,
        runs=False, note=FUSION_REFUSED, **altered,
    )  # fmt: skip

    # Formats.
    for bits, block in ((8, 0), (8, 32), (4, 0), (4, 16), (4, 32), (4, 128), (2, 0)):
        act = "silu" if block == 128 else "swiglu"
        yield more(
            bits, block, "signed-scales", signed=True, act=act, note="about half the scales are negative"
        )
    yield more(
        4,
        32,
        "five-blocks",
        zero_points=True,
        hidden=160,
        inter=32,
        experts=3,
        note="zero point rows end within a byte",
    )
    yield more(2, 16, "five-blocks", zero_points=True, hidden=80, inter=48)
    yield more(4, 16, "nine-blocks", zero_points=True, hidden=144, inter=16, act="swiglu", rows=3)
    for bits in (8, 4):
        yield more(bits, 32, "one-block-a-row", zero_points=True, hidden=32, inter=32)
    yield more(8, 0, "odd-33x17", hidden=33, inter=17, bias=True, zero_points=True)
    yield more(4, 0, "34x18", hidden=34, inter=18, bias=True, zero_points=True)
    yield more(2, 0, "36x20", hidden=36, inter=20, bias=True, zero_points=True)
    yield more(4, 0, "defaults", act="relu", k=1, defaults=True)
    yield more(4, 32, "accuracy0", accuracy_level=0)
    yield more(4, 32, "accuracy1", accuracy_level=1, act="swiglu")
    for block in (16, 32, 64, 128):
        yield more(4, block, "accuracy4", accuracy_level=4)
    yield more(4, 32, "accuracy4-swiglu-bias", zero_points=True, accuracy_level=4, act="swiglu", bias=True)
    yield more(2, 32, "accuracy4", accuracy_level=4)
    yield more(8, 32, "accuracy4", accuracy_level=4)
    yield more(8, 32, "accuracy1", accuracy_level=1, note="8-bit blocks round activations whatever the level")
    yield more(8, 0, "accuracy4", accuracy_level=4, note="no blocks, no rounding of activations")
    yield more(4, 0, "accuracy4", accuracy_level=4, note="no blocks, no rounding of activations")

    # Shapes.
    yield more(8, 0, "rank3", batch=1, rows=5)
    yield more(8, 32, "rank3", batch=2, rows=3, act="swiglu", bias=True, turn=3)
    yield more(4, 32, "rank3-router-weights", batch=2, rows=2, router_weights=True, normalize=1)
    yield more(8, 0, "one-row", rows=1, act="swiglu")
    yield more(8, 32, "one-row", rows=1, act="swiglu", turn=3)
    yield more(8, 0, "rows37", rows=37, experts=5, act="swiglu")
    yield more(8, 32, "rows37", rows=37, experts=5, k=1)
    yield more(4, 32, "rows37", rows=37, experts=5, act="swiglu", turn=3)
    yield more(4, 32, "rows18-accuracy4", rows=18, experts=5, accuracy_level=4)
    yield more(8, 0, "one-expert", experts=1, k=1)
    yield more(
        8, 32, "trailing-empty", keep_inputs=14, act="swiglu", bias=True, signed=True, normalize=1, turn=3
    )
    yield more(4, 0, "trailing-empty", keep_inputs=21, act="relu")

    # float16.
    yield more(8, 0, "f16", half=True)
    yield more(8, 0, "f16-swiglu-bias", half=True, zero_points=True, act="swiglu", bias=True)
    yield more(8, 0, "f16-router-weights", half=True, router_weights=True, normalize=1)
    yield more(4, 32, "f16", half=True)
    yield more(4, 32, "f16-swiglu-bias", half=True, act="swiglu", bias=True, zero_points=True)
    yield more(8, 32, "f16", half=True, act="swiglu")
    yield more(4, 32, "f16-accuracy4", half=True, accuracy_level=4)
    yield more(2, 0, "f16", half=True)
    yield more(8, 0, "f16-rank3", half=True, batch=1)


# --------------------------------------------------------- several nodes in a row


def two_layers(name, first: Mixture, second: Mixture, tolerance) -> Case:
    """x -> [MatMul -> operator] twice, with a residual Add after each."""
    layers = (first, second)

    def attempt(seed):
        rng = np.random.default_rng(seed)
        x = rng.standard_normal((first.rows, first.hidden)).astype(np.float32)
        initializers, a, gap = {}, x, np.inf
        for i, spec in enumerate(layers):
            _, slots = mixture_data(spec, seed + 1000 * (i + 1))
            gate = rng.standard_normal((spec.hidden, spec.experts)).astype(np.float32) / np.float32(3)
            initializers |= {f"layer{i}.gate": gate} | {f"layer{i}.{s}": v for s, v in slots.items()}
            logits = a.astype(np.float64) @ gate
            gap = min(gap, selection_gap(logits, spec.k))
            a = a + mixture_output(spec, {"x": a, "router": logits}, slots)
        return gap / 3, 0.5, (x, initializers, a.astype(np.float32))

    x, initializers, y = first_clear(name, attempt)
    nodes, current = [], "x"
    for i, spec in enumerate(layers):
        names = {"input": current, "router_probs": f"layer{i}.logits"}
        prefix = f"layer{i}."
        names |= {n.removeprefix(prefix): n for n in initializers if n.startswith(prefix) and "gate" not in n}
        nodes += [
            helper.make_node(
                "MatMul", [current, f"layer{i}.gate"], [f"layer{i}.logits"], name=f"layer{i}/gate"
            ),
            mixture_node(spec, {}, names, output=f"layer{i}.experts", name=f"layer{i}/experts"),
            helper.make_node(
                "Add", [current, f"layer{i}.experts"], ["y" if i else "layer0.out"], name=f"layer{i}/add"
            ),
        ]
        current = "layer0.out"
    shape = (np.float32, ["rows", first.hidden])
    model = make_model(nodes, {"x": shape}, {"y": shape}, initializers)
    return Case(
        name, first.op, model, {"x": x, "y": y}, tolerance, note="two layers, the router inside the model"
    )


def routed_mixture(name, spec: Mixture, router: dict, full_scores=False) -> Case:
    """`router` -> MoEGroupRouter -> router_probs (and router_weights) of MoE or QMoE."""

    def attempt(seed):
        feeds, slots = mixture_data(dataclasses.replace(spec, router_weights=False), seed)
        rng = np.random.default_rng(seed + 1)
        bias = (0.2 * rng.standard_normal(spec.experts)).astype(np.float32)
        if full_scores:
            scores, weights = oracle.moe_group_router_full(feeds["router"], bias)
            gap = selection_gap(scores, spec.k)
            routed = {"x": feeds["x"], "router": scores, "router_weights": weights}
        else:
            gap = group_router_gap(feeds["router"], bias, router)
            routed = {"x": feeds["x"], "router": oracle.moe_group_router(feeds["router"], bias, **router)}
        rounding = oracle.Rounding() if spec.int8 else None
        y = mixture_output(spec, routed, slots, rounding).astype(np.float32)
        return gap, rounding.nearest if rounding else 0.5, (feeds, slots | {"expert_bias": bias}, y)

    feeds, initializers, y = first_clear(name, attempt)
    outputs = ["", "scores", "weights"] if full_scores else ["probs"]
    route = helper.make_node(
        "MoEGroupRouter", ["router", "expert_bias"], outputs, name="route", domain=DOMAIN, **router
    )
    names = (
        {"router_probs": "scores", "router_weights": "weights"} if full_scores else {"router_probs": "probs"}
    )
    slots = {n: v for n, v in initializers.items() if n != "expert_bias"}
    inputs = mixture_inputs(dataclasses.replace(spec, router_weights=False))
    model = make_model(
        [route, mixture_node(spec, slots, names)], inputs, {"y": (np.float32, inputs["x"][1])}, initializers
    )
    return Case(
        name, spec.op, model, feeds | {"y": y}, default_tolerance(spec),
        activations="int8" if spec.int8 else "f32", note="MoEGroupRouter in front",
    )  # fmt: skip


def composed_cases():
    moe = Mixture(op="MoE", hidden=20, inter=12, rows=5)
    yield two_layers(
        "moe-two-layers",
        dataclasses.replace(moe, act="gelu"),
        dataclasses.replace(moe, act="swiglu", bias=True, normalize=1),
        EXACT,
    )
    yield two_layers(
        "qmoe-two-layers",
        Mixture(bits=8, hidden=32, inter=40, rows=5, act="swiglu"),
        Mixture(bits=4, block=16, hidden=32, inter=32, zero_points=True, bias=True),
        2 * QUANTIZED,
    )
    groups = dict(top_k=2, n_group=2, topk_group=1)
    yield routed_mixture(
        "moe-group-router", dataclasses.replace(moe, experts=8), dict(top_k=2, n_group=4, topk_group=2)
    )
    yield routed_mixture("qmoe-group-router-channel", Mixture(experts=8, hidden=40, inter=24), groups)
    yield routed_mixture(
        "qmoe-group-router-block32", Mixture(experts=8, block=32, act="swiglu", hidden=32), groups
    )
    yield routed_mixture(
        "qmoe-group-router-full-scores",
        Mixture(experts=6, k=3, hidden=40, inter=24, router_weights=True, normalize=1),
        dict(top_k=3),
        full_scores=True,
    )


# --------------------------------------------------------------- MoEGroupRouter


def group_router_gap(logits, bias, attributes):
    """How far the selection of groups and of experts is from going another way."""
    ranked = oracle.sigmoid(logits.reshape(-1, logits.shape[-1]).astype(np.float64)) + bias
    n_group = attributes.get("n_group", 1)
    size = ranked.shape[1] // n_group
    best = np.sort(ranked.reshape(len(ranked), n_group, size), -1)[..., ::-1]
    sums = best[..., : min(attributes.get("group_topk", 2), size)].sum(-1)
    gap = selection_gap(sums, attributes.get("topk_group", 1))
    flat = np.sort(ranked.ravel())
    return min(gap, 20 * float(np.diff(flat).min()))


def group_router_case(
    name, experts, attributes, shape=(4,), tweak=None, sentinel=None, half=False, note=""
) -> Case:
    dtype = np.float16 if half else np.float32

    def attempt(seed):
        rng = np.random.default_rng(seed)
        x = (1.5 * rng.standard_normal((*shape, experts))).astype(dtype)
        bias = (0.2 * rng.standard_normal(experts)).astype(np.float32)
        if tweak:
            tweak(x, bias)
        gap = np.inf if tweak else group_router_gap(x, bias, attributes)
        extra = {} if sentinel is None else {"sentinel": sentinel}
        return gap, 0.5, (x, bias, oracle.moe_group_router(x, bias, **attributes, **extra).astype(dtype))

    x, bias, y = first_clear(name, attempt)
    extra = {} if sentinel is None else {"router_sentinel": float(sentinel)}
    node = helper.make_node(
        "MoEGroupRouter", ["x", "expert_bias"], ["y"], name="route", domain=DOMAIN, **attributes, **extra
    )
    dims = ["batch", "sequence", "rows"][-len(shape) :] if len(shape) == 1 else ["batch", "sequence"]
    model = make_model(
        [node], {"x": (dtype, [*dims, experts])}, {"y": (dtype, ["tokens", experts])}, {"expert_bias": bias}
    )
    # The sentinel makes the root mean square thousands: the tolerance comes to about 1e-5 absolute.
    everywhere = attributes["top_k"] == experts
    tolerance = 1e-6 if half or everywhere or sentinel is not None else 1e-9
    return Case(name, "MoEGroupRouter", model, {"x": x, "y": y}, tolerance, note=note)


def full_scores_case(name, experts, width=0) -> Case:
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    x = rng.standard_normal((4, width or experts)).astype(np.float32)
    initializers = {"expert_bias": (0.2 * rng.standard_normal(experts)).astype(np.float32)}
    if width:
        initializers["projection_weight"] = (rng.standard_normal((experts, width)) / 16).astype(np.float32)
    scores, weights = oracle.moe_group_router_full(
        x, initializers["expert_bias"], initializers.get("projection_weight")
    )
    node = helper.make_node(
        "MoEGroupRouter", ["x", *initializers], ["", "y", "y_weights"], name="route", domain=DOMAIN, top_k=2
    )
    shape = (np.float32, ["rows", experts])
    model = make_model(
        [node],
        {"x": (np.float32, ["rows", width or experts])},
        {"y": shape, "y_weights": shape},
        initializers,
    )
    values = {"x": x, "y": scores.astype(np.float32), "y_weights": weights.astype(np.float32)}
    return Case(
        name, "MoEGroupRouter", model, values, EXACT,
        note="outputs selection_scores and router_weights; router_probs is left out",
    )  # fmt: skip


def router_ties(x, bias):
    """Equal scores within a group, and groups of equal sums."""
    x[0] = 0.25
    x[1, :] = -1
    x[1, [1, 2, 5, 6]] = 0.75
    bias[:] = 0


def router_extremes(x, bias):
    x[0, :] = -100
    x[0, 3] = 2
    x[1, :] = 100
    x[2, 0] = -np.inf
    x[2, 1:] = np.linspace(-80, -20, x.shape[1] - 1)
    bias[:] = np.linspace(0.3, -0.3, len(bias))


def group_router_cases():
    base = "moegrouprouter"
    yield group_router_case(f"{base}-one-group", 8, dict(top_k=2))
    yield group_router_case(f"{base}-one-group-k1", 5, dict(top_k=1))
    yield group_router_case(f"{base}-one-group-all", 4, dict(top_k=4))
    yield group_router_case(f"{base}-two-groups", 8, dict(top_k=2, n_group=2, topk_group=1))
    yield group_router_case(f"{base}-two-groups-both", 8, dict(top_k=3, n_group=2, topk_group=2))
    yield group_router_case(f"{base}-four-groups", 16, dict(top_k=4, n_group=4, topk_group=2))
    yield group_router_case(
        f"{base}-four-groups-best-one", 16, dict(top_k=4, n_group=4, topk_group=2, group_topk=1)
    )
    yield group_router_case(
        f"{base}-four-groups-best-three", 16, dict(top_k=3, n_group=4, topk_group=3, group_topk=3)
    )
    yield group_router_case(
        f"{base}-best-of-more-than-a-group", 8, dict(top_k=2, n_group=4, topk_group=2, group_topk=5),
        note="group_topk is bounded by the size of a group",
    )  # fmt: skip
    yield group_router_case(
        f"{base}-fewer-candidates",
        8,
        dict(top_k=5, n_group=4, topk_group=2),
        note="top_k is more than the groups kept hold: all of theirs are selected, no more",
    )
    yield group_router_case(f"{base}-sentinel", 8, dict(top_k=2, n_group=2, topk_group=1), sentinel=-30.0)
    yield group_router_case(f"{base}-rank3", 8, dict(top_k=2, n_group=2, topk_group=1), shape=(2, 3))
    yield group_router_case(
        f"{base}-ties", 8, dict(top_k=2, n_group=2, topk_group=1), tweak=router_ties, sentinel=-30.0,
        note="among equals the lower index wins here, of experts and of groups",
    )  # fmt: skip
    yield group_router_case(f"{base}-extremes", 8, dict(top_k=3), tweak=router_extremes, sentinel=-100.0)
    yield group_router_case(f"{base}-f16", 8, dict(top_k=2, n_group=2, topk_group=1), half=True)
    yield full_scores_case(f"{base}-full-scores", 6)
    yield full_scores_case(f"{base}-full-scores-projection", 6, width=256)


# ------------------------------------------------------------------ MatMulNBits


@dataclasses.dataclass
class MatMul:
    bits: int
    block: int
    k: int
    n: int = 24
    rows: int = 3
    batch: int = 0
    zero_points: bool = False
    bias: bool = False
    accuracy_level: int | None = None
    half: bool = False
    signed: bool = False
    flat: bool = False  # scales and zero points of rank 1
    defaults: bool = False  # no attribute bits
    note: str = ""
    runs: bool = True

    @property
    def dtype(self):
        return np.float16 if self.half else np.float32

    @property
    def int8(self):
        return self.accuracy_level == 4


def matmul_data(spec: MatMul, seed):
    rng = np.random.default_rng(seed)
    shape = (spec.batch, spec.rows, spec.k) if spec.batch else (spec.rows, spec.k)
    x = rng.standard_normal(shape).astype(spec.dtype)
    blocks = -(-spec.k // spec.block)
    w = np.zeros((spec.n, blocks * spec.block))
    w[:, : spec.k] = rng.standard_normal((spec.n, spec.k)) / np.sqrt(spec.k)
    if spec.zero_points:
        w[:, : spec.k] += 0.04
    integers, scales, zeros = quantize(w, spec.bits, spec.block, spec.zero_points, spec.signed)
    # What lies past K must not matter.
    integers[:, spec.k :] = rng.integers(0, 1 << spec.bits, integers[:, spec.k :].shape)
    slots = {
        "B": oracle.pack_bits(integers.reshape(spec.n, blocks, spec.block), spec.bits),
        "scales": scales.astype(spec.dtype),
    }
    if zeros is not None:
        slots["zero_points"] = oracle.pack_bits(zeros, spec.bits)
    if spec.flat:
        slots |= {n: slots[n].reshape(-1) for n in ("scales", "zero_points") if n in slots}
    if spec.bias:
        slots["bias"] = rng.standard_normal(spec.n).astype(spec.dtype)
    return x, slots


def matmul_node(spec: MatMul, slots, attributes=None, names=None):
    attrs = {"K": spec.k, "N": spec.n, "block_size": spec.block}
    if not spec.defaults:
        attrs["bits"] = spec.bits
    if spec.accuracy_level is not None:
        attrs["accuracy_level"] = spec.accuracy_level
    names = {"A": "x"} | {s: s for s in slots} | (names or {})
    return helper.make_node(
        "MatMulNBits", node_inputs(MATMUL_SLOTS, names), ["y"], name="matmul", domain=DOMAIN,
        **(attrs | (attributes or {})),
    )  # fmt: skip


def matmul_case(name, spec: MatMul) -> Case:
    def attempt(seed):
        x, slots = matmul_data(spec, seed)
        rounding = oracle.Rounding() if spec.int8 else None
        y = oracle.matmul_nbits(
            x, slots["B"], slots["scales"], slots.get("zero_points"), slots.get("bias"),
            spec.n, spec.k, spec.bits, spec.block, rounding,
        ).astype(spec.dtype)  # fmt: skip
        return np.inf, rounding.nearest if rounding else 0.5, (x, slots, y)

    x, slots, y = first_clear(name, attempt)
    dims = ["batch", "rows"] if spec.batch else ["rows"]
    model = make_model(
        [matmul_node(spec, slots)],
        {"x": (spec.dtype, [*dims, spec.k])},
        {"y": (spec.dtype, [*dims, spec.n])},
        slots,
    )
    tolerance = HALF if spec.half else INT8 if spec.int8 else QUANTIZED
    return Case(
        name, "MatMulNBits", model, {"x": x, "y": y}, tolerance,
        activations="int8" if spec.int8 else "f32", runs_in_onnxruntime=spec.runs, note=spec.note,
    )  # fmt: skip


def matmul_cases():
    for bits in (8, 4, 2):
        for block in (16, 32, 64, 128):
            for zero_points in (False, True):
                for level in (None, 4):
                    name = f"matmulnbits-{bits}bit-block{block}"
                    name += ("-zp" if zero_points else "") + ("-accuracy4" if level else "")
                    spec = MatMul(bits, block, k=3 * block, zero_points=zero_points, accuracy_level=level)
                    spec.bias = zero_points
                    if (bits, block, level) == (2, 16, 4):
                        spec.runs = False
                        spec.note = (
                            "onnxruntime has no 8-bit kernel for this one and keeps float32 activations"
                        )
                    yield matmul_case(name, spec)

    def more(name, bits, block, k, **fields):
        return matmul_case(f"matmulnbits-{bits}bit-block{block}-{name}", MatMul(bits, block, k, **fields))

    for bits in (8, 4):
        for level in (0, 1):
            yield more(f"accuracy{level}", bits, 32, 64, accuracy_level=level)
        yield more("rank3", bits, 32, 64, batch=2)
        yield more("rank3-accuracy4", bits, 32, 64, batch=2, accuracy_level=4, bias=True)
        yield more("bias", bits, 32, 64, bias=True)
        yield more("one-row", bits, 32, 96, rows=1, n=31, zero_points=True)
        yield more("rows21", bits, 32, 64, rows=21)
        yield more("flat", bits, 32, 96, flat=True, zero_points=True, note="scales and zero points of rank 1")
        yield more("flat-accuracy4", bits, 32, 96, flat=True, accuracy_level=4)
        yield more("signed-scales", bits, 32, 64, signed=True)
        yield more("f16", bits, 32, 64, half=True)
        yield more("f16-zp-bias", bits, 64, 128, half=True, zero_points=True, bias=True)
        yield more("f16-accuracy4", bits, 32, 64, half=True, accuracy_level=4)
        ragged = dict(note="K ends within a block; what is stored past it must not matter")
        yield more("ragged", bits, 32, 72, **ragged)
        yield more("ragged-zp-bias", bits, 16, 40, zero_points=True, bias=True, **ragged)
        yield more("ragged-accuracy4", bits, 32, 72, accuracy_level=4, **ragged)
        yield more("ragged-zp-accuracy4", bits, 128, 160, accuracy_level=4, zero_points=True, **ragged)
        yield more("ragged-below-a-block", bits, 64, 40, **ragged)
    yield more("ragged-odd", 8, 32, 67, note="K is odd")
    yield more("ragged-odd", 4, 32, 67, note="K is odd")
    yield more("defaults", 4, 32, 64, defaults=True)


def all_cases():
    for name, spec in [*moe_specs(), *qmoe_specs()]:
        yield name, lambda name=name, spec=spec: mixture_case(name, spec)
    for case in (*composed_cases(), *group_router_cases(), *matmul_cases()):
        yield case.name, lambda case=case: case


# ------------------------------------------------------------ models to be refused


def refused_mixture(
    spec=None, attributes=None, change=None, names=None, inputs=None, contains=(), domain=DOMAIN
):
    """A valid QMoE (or `spec`) node, then broken: `change` edits {slot: initializer}."""
    spec = spec or Mixture(hidden=40, inter=24)
    _, slots = mixture_data(spec, 7)
    if change:
        change(slots)
    graph_inputs = mixture_inputs(spec) | (inputs or {})
    node = mixture_node(spec, slots, names, attributes, domain=domain)
    initializers = {n: v for n, v in slots.items() if n not in graph_inputs}
    domains = (domain,) if domain else ()
    model = make_model(
        [node], graph_inputs, {"y": (spec.dtype, ["rows", spec.hidden])}, initializers, domains
    )
    # An operator set that is not known is refused before any node is looked at.
    named = [spec.op, "moe"] if domain in ("", DOMAIN) else []
    return model, [*named, *contains]


def edit(slot, function):
    def change(slots):
        slots[slot] = function(slots[slot])

    return change


def refused_matmul(attributes=None, slots=None, contains=()):
    spec = MatMul(4, 32, 64)
    _, data = matmul_data(spec, 7)
    data |= slots or {}
    model = make_model(
        [matmul_node(spec, data, attributes)],
        {"x": (np.float32, ["rows", 64])}, {"y": (np.float32, ["rows", spec.n])}, data,
    )  # fmt: skip
    return model, ["MatMulNBits", "matmul", *contains]


def refused_attention():
    rng = np.random.default_rng(7)
    slots = {
        "weight": rng.standard_normal((16, 48)).astype(np.float32),
        "bias": rng.standard_normal(48).astype(np.float32),
    }
    node = helper.make_node(
        "Attention", ["x", "weight", "bias"], ["y"], name="attention", domain=DOMAIN, num_heads=2
    )
    shape = (np.float32, ["batch", "sequence", 16])
    return make_model([node], {"x": shape}, {"y": shape}, slots), ["Attention", "attention", DOMAIN]


def refused_cases():
    blocks = Mixture(block=32)
    four = Mixture(bits=4, block=32)
    moe = Mixture(op="MoE", hidden=20, inter=12)
    weights = "fc1_experts_weights"

    for kind in ("fp4", "nvfp4", "fp8"):
        yield f"qmoe-{kind}", refused_mixture(four, {"quant_type": kind}, contains=["quant_type", kind])
    yield (
        "qmoe-fc2-4bit",
        refused_mixture(
            attributes={"fc2_expert_weight_bits": 4},
            change=edit("fc2_experts_weights", lambda w: np.ascontiguousarray(w[..., ::2])),
            contains=["fc2_expert_weight_bits"],
        ),
    )
    for bits in (3, 5, 16):
        yield (
            f"qmoe-{bits}bit",
            refused_mixture(attributes={"expert_weight_bits": bits}, contains=["expert_weight_bits"]),
        )
    for block in (8, 24):
        spec = Mixture(hidden=48, inter=48, block=block)
        yield f"qmoe-block{block}", refused_mixture(spec, contains=["block_size"])
    yield (
        "qmoe-hidden-not-whole-blocks",
        refused_mixture(Mixture(hidden=48, inter=32, block=16), {"block_size": 32}, contains=["block_size"]),
    )
    yield "qmoe-inter-not-whole-blocks", refused_mixture(
        Mixture(hidden=64, inter=48, block=16), {"block_size": 32},
        change=edit("fc1_scales", lambda s: s[..., ::2]), contains=["block_size"],
    )  # fmt: skip
    for operator, spec in (("qmoe", Mixture(hidden=40, inter=24)), ("moe", moe)):
        for k, label in ((0, "k0"), (-1, "k-negative"), (5, "k-over-experts")):
            yield f"{operator}-{label}", refused_mixture(spec, {"k": k}, contains=["k"])
        for act in ("geglu", "relu2", "tanh"):
            yield (
                f"{operator}-{act}",
                refused_mixture(spec, {"activation_type": act}, contains=["activation_type", act]),
            )
        yield (
            f"{operator}-sparse-mixer",
            refused_mixture(spec, {"use_sparse_mixer": 1}, contains=["use_sparse_mixer"]),
        )
        gated = dataclasses.replace(spec, act="swiglu")
        yield f"{operator}-fusion3", refused_mixture(gated, {"swiglu_fusion": 3}, contains=["swiglu_fusion"])
        yield (
            f"{operator}-fusion0-without-fc3",
            refused_mixture(gated, {"swiglu_fusion": 0}, contains=["fc3_experts_weights"]),
        )
        yield f"{operator}-limit-after-activation", refused_mixture(
            dataclasses.replace(gated, limit=1.0), {"swiglu_limit_after_activation": 1},
            contains=["swiglu_limit_after_activation"],
        )  # fmt: skip
        yield (
            f"{operator}-weights-transposed",
            refused_mixture(spec, change=edit(weights, lambda w: w.transpose(0, 2, 1)), contains=[weights]),
        )
        yield (
            f"{operator}-weights-rank2",
            refused_mixture(
                spec, change=edit(weights, lambda w: w.reshape(-1, w.shape[2])), contains=[weights]
            ),
        )
        yield (
            f"{operator}-fc2-experts-differ",
            refused_mixture(
                spec, change=edit("fc2_experts_weights", lambda w: w[:-1]), contains=["fc2_experts_weights"]
            ),
        )
        shape = [spec.experts, spec.inter, spec.hidden]
        dtype = np.float32 if operator == "moe" else np.uint8
        yield (
            f"{operator}-weights-not-constant",
            refused_mixture(spec, inputs={weights: (dtype, shape)}, contains=[weights]),
        )
        yield (
            f"{operator}-router-experts-differ",
            refused_mixture(
                spec, inputs={"router": (np.float32, ["rows", spec.experts + 1])}, contains=["router_probs"]
            ),
        )
        yield f"{operator}-bias-shape", refused_mixture(
            dataclasses.replace(spec, bias=True), change=edit("fc1_experts_bias", lambda b: b[:, 1:]),
            contains=["fc1_experts_bias"],
        )  # fmt: skip
        yield f"{operator}-odd-swiglu-rows", refused_mixture(
            dataclasses.replace(spec, inter=spec.inter + 1), {"activation_type": "swiglu", "swiglu_fusion": 1},
            contains=[weights],
        )  # fmt: skip
    for label, spec in (("channel", Mixture(hidden=40, inter=24)), ("block32", blocks)):
        yield (
            f"qmoe-{label}-scales-shape",
            refused_mixture(spec, change=edit("fc1_scales", lambda s: s[:, 1:]), contains=["fc1_scales"]),
        )
        yield (
            f"qmoe-{label}-scales-missing",
            refused_mixture(spec, change=lambda slots: slots.pop("fc2_scales"), contains=["fc2_scales"]),
        )
        spec = dataclasses.replace(spec, zero_points=True)
        yield (
            f"qmoe-{label}-zp-shape",
            refused_mixture(
                spec, change=edit("fc2_zero_points", lambda z: z[:, 1:]), contains=["fc2_zero_points"]
            ),
        )
    yield "qmoe-4bit-zp-unpacked", refused_mixture(
        dataclasses.replace(four, zero_points=True),
        change=edit("fc1_zero_points", lambda z: oracle.unpack_bits(z, 4, 2)), contains=["fc1_zero_points"],
    )  # fmt: skip
    yield (
        "qmoe-scales-not-constant",
        refused_mixture(inputs={"fc1_scales": (np.float32, [4, 24])}, contains=["fc1_scales"]),
    )
    yield (
        "qmoe-global-scale",
        refused_mixture(
            change=lambda slots: slots.update(fc1_global_scale=np.ones(4, np.float32)),
            contains=["fc1_global_scale"],
        ),
    )
    yield "qmoe-prepacked", refused_mixture(four, {"weights_prepacked": 1}, contains=["weights_prepacked"])
    yield "moe-no-domain", refused_mixture(moe, domain="")
    yield "moe-unknown-domain", refused_mixture(moe, domain="acme", contains=["acme"])
    yield (
        "matmulnbits-g-idx",
        refused_matmul(slots={"g_idx": np.repeat(np.arange(2, dtype=np.int32), 32)}, contains=["g_idx"]),
    )
    yield "matmulnbits-3bit", refused_matmul({"bits": 3}, contains=["bits"])
    yield "matmulnbits-block24", refused_matmul({"block_size": 24}, contains=["block_size"])
    yield (
        "matmulnbits-weights-shape",
        refused_matmul(slots={"B": np.zeros((24, 3, 16), np.uint8)}, contains=["B"]),
    )
    yield (
        "matmulnbits-scales-shape",
        refused_matmul(slots={"scales": np.ones((24, 3), np.float32)}, contains=["scales"]),
    )
    yield "attention", refused_attention()


# -------------------------------------------------------------------------- files


def write(path: pathlib.Path, model):
    path.write_bytes(model.SerializeToString(deterministic=True))


def write_index(path: pathlib.Path, entries):
    lines = ",\n".join("  " + json.dumps(entry) for entry in entries)
    path.write_text(f"[\n{lines}\n]\n")


def write_case(folder: pathlib.Path, case: Case) -> dict:
    write(folder / f"{case.name}.onnx", case.model)
    write(folder / f"{case.name}.io.onnx", make_io(case.values))
    return {
        "name": case.name,
        "operator": case.operator,
        "activations": case.activations,
        "tolerance": case.tolerance,
        "runs_in_onnxruntime": case.runs_in_onnxruntime,
        "note": case.note,
    }


def merge_index(path: pathlib.Path, entries, keep):
    """Writes `entries`, after those already there for which `keep(name)` holds."""
    old = json.loads(path.read_text()) if path.exists() else []
    new = {entry["name"] for entry in entries}
    kept = [entry for entry in old if entry["name"] not in new and keep(entry["name"])]
    write_index(path, sorted(kept + entries, key=lambda entry: entry["name"]))


def is_exported(name):
    """Cases that export_lfm2.py writes."""
    return name.startswith("lfm2-")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--out", type=pathlib.Path, default=ROOT, help="the folder to write into (tests/data)"
    )
    parser.add_argument("--only", metavar="TEXT", help="only the cases whose name contains TEXT")
    arguments = parser.parse_args()

    def wanted(name):
        return not arguments.only or arguments.only in name

    operators, refused = arguments.out / "operators", arguments.out / "refused"
    for folder in (operators, refused):
        folder.mkdir(parents=True, exist_ok=True)
        if not arguments.only:
            for old in folder.glob("*.onnx"):
                if not is_exported(old.name):
                    old.unlink()

    entries, names = [], set()
    for name, build in all_cases():
        if name in names:
            raise SystemExit(f"two cases are called {name}")
        names.add(name)
        if wanted(name):
            entries.append(write_case(operators, build()))
    merge_index(
        operators / "index.json", entries, keep=lambda n: is_exported(n) or n in names and arguments.only
    )

    rejects, refused_names = [], set()
    for name, (model, contains) in refused_cases():
        refused_names.add(name)
        if wanted(name):
            write(refused / f"{name}.onnx", model)
            rejects.append({"name": name, "contains": contains})
    merge_index(refused / "index.json", rejects, keep=lambda n: n in refused_names and arguments.only)
    print(f"{len(entries)} cases, {len(rejects)} models to be refused, in {arguments.out}")


if __name__ == "__main__":
    main()
