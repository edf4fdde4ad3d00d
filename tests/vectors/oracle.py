"""NumPy references for the operators that moed implements.

Each function says which operator's specification it follows. All the
specifications are the schemas that onnxruntime 1.32 registers under the domain
`com.microsoft`, opset version 1 (`MoE`, `QMoE`, `MoEGroupRouter`,
`MatMulNBits`); where a schema leaves something open (ties in the router, which
weights are skipped, where activations are rounded), the CPU execution provider
of onnxruntime 1.32 decides.

Arithmetic is done in float64 on the exact values of the stored numbers, so an
expected output is the true result rounded once. The exceptions are written
out: the choice of experts, and the rounding of activations to 8 bits.
"""

from __future__ import annotations

import numpy as np

F32 = np.float32
F64 = np.float64

# QMoE passes over an expert whose mixing weight is not above this.
QMOE_SKIP = 1e-8


# ------------------------------------------------------------- packed integers


def pack_bits(values: np.ndarray, bits: int) -> np.ndarray:
    """Packs unsigned integers of `bits` bits (8, 4 or 2) along the last axis.

    QMoE, MatMulNBits: the first value takes the low bits of the first byte; a
    row that ends within a byte is filled with zero bits.
    """
    per_byte = 8 // bits
    rows = values.shape[:-1]
    count = values.shape[-1]
    width = -(-count // per_byte)
    padded = np.zeros((*rows, width * per_byte), np.uint8)
    padded[..., :count] = values
    lanes = padded.reshape(*rows, width, per_byte)
    shifts = (np.arange(per_byte) * bits).astype(np.uint8)
    return np.bitwise_or.reduce(lanes << shifts, axis=-1).astype(np.uint8)


def unpack_bits(packed: np.ndarray, bits: int, count: int) -> np.ndarray:
    """The inverse of `pack_bits`: the first `count` values of each row."""
    per_byte = 8 // bits
    shifts = (np.arange(per_byte) * bits).astype(np.uint8)
    lanes = (packed[..., None] >> shifts) & np.uint8((1 << bits) - 1)
    return lanes.reshape(*packed.shape[:-1], -1)[..., :count]


def dequantize_experts(weights, scales, zero_points, bits, block, features):
    """QMoE, quant_type "int": `(quantized - zero_point) * scale`.

    `weights` is u8 [E, N, features*bits/8]. Without a block (`block == 0`)
    there is one scale a row, [E, N], and zero points are packed along N; with
    one, there is one a block of the row, [E, N, features/block], and zero
    points are packed along the blocks of each row. The zero point defaults to
    2^(bits-1).
    """
    experts, rows = weights.shape[:2]
    blocks = features // block if block else 1
    quantized = unpack_bits(weights, bits, features).astype(F64)
    quantized = quantized.reshape(experts, rows, blocks, -1)
    scale = scales.astype(F64).reshape(experts, rows, blocks, 1)
    zero = F64(1 << (bits - 1))
    if zero_points is not None:
        zero = unpack_bits(zero_points, bits, blocks if block else rows)
        zero = zero.astype(F64).reshape(experts, rows, blocks, 1)
    return ((quantized - zero) * scale).reshape(experts, rows, features)


# ------------------------------------------------------------------ activations


def activate(h, name):
    """MoE and QMoE, attribute activation_type, for one projection."""
    match name:
        case "identity":
            return h
        case "relu":
            return np.maximum(h, 0)
        case "silu":
            return h * sigmoid(h)
        case "gelu":  # the tanh form
            inner = 0.7978845608028654 * (h + 0.044715 * h**3)
            return 0.5 * h * (1 + np.tanh(inner))
    raise ValueError(name)


def sigmoid(v):
    return 1 / (1 + np.exp(-v))


def swiglu(gate, linear, alpha, beta, limit):
    """MoE and QMoE, activation_type "swiglu".

    The gate is bounded above by swiglu_limit and the linear part on both
    sides; then `gate * sigmoid(alpha * gate) * (linear + beta)`.
    """
    if limit is not None:
        bound = F64(F32(limit))
        gate = np.minimum(gate, bound)
        linear = np.clip(linear, -bound, bound)
    return gate * sigmoid(F64(F32(alpha)) * gate) * (linear + F64(F32(beta)))


class Rounding:
    """Rounds activations to 8 bits, and remembers how near it came to a tie.

    What the 8-bit kernels of onnxruntime do with the input of a product (QMoE
    and MatMulNBits with accuracy_level 4, QMoE with 8-bit block-wise weights
    whatever the level): each row, cut at the blocks of the weights, is divided
    by its largest magnitude over 127 and rounded to even.

    `nearest` is the smallest distance from a rounded value to the point where
    it would have gone the other way, in steps: vectors are chosen so that it
    is far above the noise of float32 sums.
    """

    def __init__(self):
        self.nearest = 0.5

    def __call__(self, a, block):
        a = a.astype(F32)
        out = np.zeros(a.shape, F64)
        for start in range(0, a.shape[-1], block):
            part = a[..., start : start + block]
            step = np.abs(part).max(-1, keepdims=True) / F32(127)
            safe = np.where(step > 0, step, F32(1))
            steps = part / safe
            whole = np.rint(steps)
            self.nearest = min(self.nearest, float((0.5 - np.abs(steps - whole)).min()))
            out[..., start : start + block] = whole.astype(F64) * step.astype(F64)
        return out


# ---------------------------------------------------------------------- routing


def top_k_high_index(values, k):
    """The indices of the k largest; among equals the higher index goes first.

    MoE and QMoE on the CPU execution provider.
    """
    return sorted(range(len(values)), key=lambda i: (values[i], i), reverse=True)[:k]


def top_k_low_index(values, k):
    """The indices of the k largest; among equals the lower index goes first.

    MoEGroupRouter on the CPU execution provider.
    """
    return sorted(range(len(values)), key=lambda i: (-values[i], i))[:k]


def softmax(v):
    e = np.exp(v - v.max())
    return e / e.sum()


def route_moe(logits, k, normalize):
    """MoE: softmax over all the experts, then the k largest probabilities.

    Only with normalize_routing_weights do the weights kept sum to one.
    Returns [(expert, weight), ...]; experts whose weight is not above 0 are
    left out, so that a row of nothing but -inf (its weights are NaN) has none.
    """
    with np.errstate(invalid="ignore"):
        probabilities = softmax(logits.astype(F64))
    chosen = top_k_high_index(probabilities.astype(F32), k)
    weights = probabilities[chosen]
    if normalize:
        weights = weights / weights.sum()
    return [(e, w) for e, w in zip(chosen, weights) if F32(w) > 0]


def route_qmoe(logits, k, normalize, router_weights=None):
    """QMoE: the k largest logits, then either of two weightings.

    Without router_weights, softmax over the k kept, so that they sum to one
    whatever normalize_routing_weights says. With it, the values it holds for
    the experts kept, divided by their sum if normalize_routing_weights is set
    (all of them 0 if the sum is). Experts with a weight of at most 1e-8,
    negative ones included, are left out.
    """
    logits = logits.astype(F32)
    chosen = top_k_high_index(logits, k)
    if router_weights is None:
        with np.errstate(invalid="ignore"):
            weights = softmax(logits[chosen].astype(F64))
    else:
        weights = router_weights[chosen].astype(F64)
        if normalize:
            total = weights.sum()
            weights = weights / total if total != 0 else weights * 0
    return [(e, w) for e, w in zip(chosen, weights) if w > QMOE_SKIP]


# -------------------------------------------------------------------- operators


def mixture(x, routes, fc1, fc2, fc3, act, fusion, alpha, beta, limit, rounding=None, block=0):
    """MoE and QMoE: `sum of weight * expert(row)` over each row's experts.

    `fc1`, `fc2`, `fc3` are pairs (weights [E, N, K], bias [E, N] or None);
    `fc3` is None unless the up projection is a matrix of its own
    (swiglu_fusion 0). For swiglu, fusion 1 means that fc1's rows alternate
    gate, linear; fusion 2, that all the gates come first.
    """
    prepare = (lambda a: rounding(a, block)) if rounding else (lambda a: a)

    def project(a, layer, expert):
        weights, bias = layer
        out = weights[expert].astype(F64) @ a
        return out if bias is None else out + bias[expert].astype(F64)

    rows = x.reshape(-1, x.shape[-1])
    y = np.zeros((len(rows), fc2[0].shape[1]), F64)
    for t, row in enumerate(rows):
        a = prepare(row.astype(F64))
        for expert, weight in routes[t]:
            h = project(a, fc1, expert)
            if act == "swiglu":
                if fusion == 0:
                    gate, linear = h, project(a, fc3, expert)
                elif fusion == 1:
                    gate, linear = h[0::2], h[1::2]
                else:
                    gate, linear = h[: len(h) // 2], h[len(h) // 2 :]
                h = swiglu(gate, linear, alpha, beta, limit)
            else:
                h = activate(h, act)
            y[t] += weight * project(prepare(h), fc2, expert)
    return y.reshape(x.shape)


def matmul_nbits(a, b, scales, zero_points, bias, n, k, bits, block, rounding=None):
    """MatMulNBits: `a @ dequantized(b).T + bias`.

    `b` is u8 [N, blocks, block*bits/8] with blocks = ceil(K/block): the last
    block of a row is stored whole even if K ends within it. Scales are
    [N, blocks] and zero points are packed along the blocks of each row, both
    also allowed flat.
    """
    blocks = -(-k // block)
    quantized = unpack_bits(b.reshape(n, blocks, -1), bits, block).astype(F64)
    zero = F64(1 << (bits - 1))
    if zero_points is not None:
        packed = zero_points.reshape(n, -(-blocks * bits // 8))
        zero = unpack_bits(packed, bits, blocks).astype(F64)[..., None]
    scale = scales.astype(F64).reshape(n, blocks, 1)
    weights = ((quantized - zero) * scale).reshape(n, -1)[:, :k]
    a = a.astype(F64)
    if rounding:
        a = rounding(a.reshape(-1, k), block).reshape(a.shape)
    y = a @ weights.T
    return y if bias is None else y + bias.astype(F64)


def moe_group_router(logits, expert_bias, top_k, n_group=1, topk_group=1, group_topk=2, sentinel=-10000.0):
    """MoEGroupRouter, output router_probs.

    With s = sigmoid(logits): the experts are ranked by s + expert_bias. The
    topk_group groups whose group_topk best experts have the largest sum stay
    in play, and the top_k best experts of those are selected. The output holds
    log(max(s, 1e-20)) for these, without the bias, and the sentinel elsewhere.
    """
    experts = logits.shape[-1]
    flat = logits.reshape(-1, experts)
    s = sigmoid(flat.astype(F64))
    ranked = s.astype(F32) + expert_bias.astype(F32)
    size = experts // n_group
    out = np.full(flat.shape, sentinel, F64)
    for t in range(len(flat)):
        groups = ranked[t].reshape(n_group, size)
        best = np.sort(groups, -1)[:, ::-1][:, : min(group_topk, size)]
        kept = top_k_low_index(best.sum(-1), topk_group)
        candidates = [g * size + i for g in sorted(kept) for i in range(size)]
        order = top_k_low_index(ranked[t][candidates], top_k)
        chosen = [candidates[i] for i in order]
        out[t, chosen] = np.log(np.maximum(s[t, chosen], 1e-20))
    return out


def moe_group_router_full(logits, expert_bias, projection=None):
    """MoEGroupRouter, outputs selection_scores and router_weights.

    router_weights is the sigmoid, selection_scores the sigmoid plus the bias;
    nothing is selected. With projection_weight [E, width] the first input is
    not logits but activations, multiplied by it first.
    """
    logits = logits.astype(F64)
    if projection is not None:
        logits = logits @ projection.astype(F64).T
    s = sigmoid(logits.reshape(-1, logits.shape[-1]))
    return s + expert_bias.astype(F64), s
