"""Writes an encoder (model.py) as an ONNX graph with 8-bit weights.

com.microsoft.QMoE for the experts, com.microsoft.MatMulNBits for dense layers, a row-wise int8
table for the n-grams; routers, norms and the allocator stay in float32. One sentence at a time:
rows are words. The experts' tensors go to a file of their own.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper

BLOCK = 32
ALIGN = 16384
OPSET = 18


def quantize(w):
    """Symmetric 8 bits in blocks of 32 along K: uint8 [.., K] around 128 and scales [.., K / 32]."""
    parts = w.reshape(*w.shape[:-1], -1, BLOCK)
    scales = np.abs(parts).max(-1) / 127
    scales = np.where(scales == 0, 1, scales).astype(np.float32)
    codes = np.clip(np.rint(parts / scales[..., None]), -127, 127) + 128
    return codes.astype(np.uint8).reshape(w.shape), scales


class Graph:
    """Nodes and constants, added one after another."""

    def __init__(self):
        self.nodes, self.constants, self.outside = [], [], []
        self.count = 0

    def const(self, array, outside=False):
        """The name of a constant; `outside`: in experts.bin."""
        self.count += 1
        name = f"c{self.count}"
        self.constants.append(numpy_helper.from_array(np.asarray(array, order="C"), name))
        if outside:
            self.outside.append(name)
        return name

    def add(self, kind, *inputs, domain="", out=None, **attributes):
        """Adds a node; arrays among its inputs become constants. Returns the name of its output."""
        self.count += 1
        out = out or f"v{self.count}"
        names = [i if isinstance(i, str) else self.const(np.asarray(i)) for i in inputs]
        self.nodes.append(helper.make_node(kind, names, [out], name=f"{kind}_{self.count}", domain=domain, **attributes))
        return out

    def linear(self, x, layer, out=None):
        """x W^T + b by MatMulNBits."""
        w = layer.weight.detach().numpy()
        codes, scales = quantize(w)
        inputs = [x, codes.reshape(w.shape[0], -1, BLOCK), scales.reshape(-1)]
        if layer.bias is not None:
            inputs += ["", "", layer.bias.detach().numpy()]
        return self.add("MatMulNBits", *inputs, domain="com.microsoft", out=out, K=w.shape[1], N=w.shape[0],
                        bits=8, block_size=BLOCK, accuracy_level=4)  # fmt: skip

    def norm(self, x, layer):
        """Layer normalisation over the last axis."""
        weight, bias = layer.weight.detach().numpy(), layer.bias.detach().numpy()
        return self.add("LayerNormalization", x, weight, bias, axis=-1, epsilon=layer.eps)

    def float_linear(self, x, layer):
        """x W^T + b in float32."""
        y = self.add("MatMul", x, layer.weight.detach().numpy().T)
        return y if layer.bias is None else self.add("Add", y, layer.bias.detach().numpy())


def embed(g, net, ids):
    """ids [L, ngrams] to the sum of their rows [L, D]; row 0 is zero."""
    table = net.embedding.weight.detach().numpy().copy()
    table[0] = 0
    scales = np.abs(table).max(-1, keepdims=True) / 127
    scales = np.where(scales == 0, 1, scales).astype(np.float32)
    codes = np.rint(table / scales).astype(np.int8)
    rows = g.add("Cast", g.add("Gather", codes, ids, axis=0), to=onnx.TensorProto.FLOAT)
    rows = g.add("Mul", rows, g.add("Gather", scales, ids, axis=0))
    return g.add("ReduceSum", rows, np.array([1]), keepdims=0)


def shift(g, layer, x):
    """Each word and its neighbours, weighted by channel."""
    nothing = g.const(np.zeros((1, layer.before.shape[0]), np.float32))
    begin, second, past, last = (g.const(np.array([i])) for i in (0, 1, 2**31 - 1, -1))
    before = g.add("Concat", nothing, g.add("Slice", x, begin, last, begin), axis=0)
    after = g.add("Concat", g.add("Slice", x, second, past, begin), nothing, axis=0)
    x = g.add("Add", x, g.add("Mul", before, layer.before.detach().numpy()))
    return g.add("Add", x, g.add("Mul", after, layer.after.detach().numpy()))


def attention(g, block, x):
    """Self-attention over the words of the sentence, with its norm and residual."""
    heads, width = block.config.heads, block.config.width
    x = shift(g, block.shift, x)
    qkv = g.linear(g.norm(x, block.norm1), block.qkv)
    qkv = g.add("Transpose", g.add("Reshape", qkv, np.array([-1, 3, heads, width // heads])), perm=[1, 2, 0, 3])
    q, k, v = (g.add("Gather", qkv, np.array(i), axis=0) for i in range(3))
    scores = g.add("MatMul", q, g.add("Transpose", k, perm=[0, 2, 1]))
    scores = g.add("Mul", scores, np.array((width // heads) ** -0.5, np.float32))
    y = g.add("MatMul", g.add("Softmax", scores, axis=-1), v)
    y = g.add("Reshape", g.add("Transpose", y, perm=[1, 0, 2]), np.array([-1, width]))
    return g.add("Add", x, g.linear(y, block.out))


def allocate(g, net, seen, budget):
    """k [1, 1] as a float: the allocator's best number of experts."""
    asked = g.add("Concat", seen, g.add("Reshape", budget, np.array([1, 1])), axis=1)
    scores = g.float_linear(g.add("Relu", g.float_linear(asked, net.allocator.hidden)), net.allocator.out)
    best = g.add("ArgMax", scores, axis=1, keepdims=1)
    return g.add("Add", g.add("Cast", best, to=onnx.TensorProto.FLOAT), np.array(1, np.float32))


def swiglu(g, layer, x):
    """A dense SwiGLU layer."""
    gate = g.linear(x, layer.w1)
    gate = g.add("Mul", gate, g.add("Sigmoid", gate))
    return g.linear(g.add("Mul", gate, g.linear(x, layer.w3)), layer.w2)


def mixture(g, layer, x, asked, k, ones):
    """Shared expert and routed experts. asked: what the router sees, [1, D] or [L, D]; k: [1, 1]."""
    config = layer.config
    affinity = g.add("Sigmoid", g.add("MatMul", asked, layer.router.weight.detach().numpy().T))
    select = g.add("Add", affinity, layer.bias.numpy())
    # The k-th largest selection score is the threshold below which experts get weight 0.
    g.count += 1
    best, rank = f"best{g.count}", f"rank{g.count}"
    k_max = g.const(np.array([config.k_max]))
    g.nodes.append(helper.make_node("TopK", [select, k_max], [best, rank], name=f"TopK_{g.count}", axis=-1))
    at = g.add("Cast", g.add("Equal", np.arange(1, config.k_max + 1, dtype=np.float32)[None], k), to=onnx.TensorProto.FLOAT)
    threshold = g.add("ReduceSum", g.add("Mul", best, at), np.array([1]), keepdims=1)
    kept = g.add("Cast", g.add("GreaterOrEqual", select, threshold), to=onnx.TensorProto.FLOAT)
    weight = g.add("Mul", affinity, kept)
    if config.route == "sentence":
        select, weight = g.add("Mul", select, ones), g.add("Mul", weight, ones)
    w1, w3, w2 = (w.detach().numpy().transpose(0, 2, 1) for w in (layer.w1, layer.w3, layer.w2))
    fc1 = np.stack([w1, w3], 2).reshape(config.experts, 2 * config.hidden, config.width)  # rows: gate, up, gate, up
    inputs = [x, select]
    for w in (fc1, w2):
        codes, scales = quantize(w)
        inputs += [g.const(codes, outside=True), scales, ""]
    routed = g.add("QMoE", *inputs, "", "", "", "", "", "", weight, domain="com.microsoft", k=config.k_max,
                   activation_type="swiglu", activation_alpha=1.0, activation_beta=0.0, swiglu_fusion=1,
                   normalize_routing_weights=1, expert_weight_bits=8, block_size=BLOCK)  # fmt: skip
    return g.add("Add", swiglu(g, layer.shared, x), routed)


def build(net, ngrams) -> tuple[onnx.ModelProto, list[str]]:
    """The graph of a net, and the names of the constants for experts.bin."""
    net = net.eval()
    g, config = Graph(), net.config
    x = g.norm(embed(g, net, "ids"), net.norm0)
    count = g.add("Slice", g.add("Shape", "ids"), np.array([0]), np.array([1]), np.array([0]))
    x = g.add("Add", x, g.add("Slice", net.position.detach().numpy(), np.array([0]), count, np.array([0])))
    any_id = g.add("ReduceMax", g.add("Cast", "ids", to=onnx.TensorProto.FLOAT), np.array([1]), keepdims=1)
    ones = g.add("Cast", g.add("Greater", any_id, np.array(0, np.float32)), to=onnx.TensorProto.FLOAT)  # [L, 1]
    k = None
    for block in net.blocks:
        x = attention(g, block, x)
        normed = g.norm(x, block.norm2)
        mean = g.add("ReduceMean", normed, np.array([0]), keepdims=1)
        if config.experts and k is None:
            k = allocate(g, net, mean, "budget")
        asked = mean if config.route == "sentence" else normed
        y = mixture(g, block.ffn, normed, asked, k, ones) if config.experts else swiglu(g, block.ffn, normed)
        x = g.add("Add", x, y)
    x = g.norm(x, net.norm)
    mean, top = (g.add(kind, x, np.array([0]), keepdims=1) for kind in ("ReduceMean", "ReduceMax"))
    g.add("Reshape", g.linear(g.add("Concat", mean, top, axis=1), net.intent), np.array([-1]), out="intent_logits")
    g.linear(x, net.tag, out="tag_logits")
    outputs = [("intent_logits", [config.intents]), ("tag_logits", ["words", config.tags])]
    if k is not None:
        g.add("Reshape", k, np.array([1]), out="k")
        outputs.append(("k", [1]))
    inputs = [helper.make_tensor_value_info("ids", onnx.TensorProto.INT64, ["words", ngrams])]
    if k is not None:
        inputs.append(helper.make_tensor_value_info("budget", onnx.TensorProto.FLOAT, [1]))
    made = helper.make_graph(
        g.nodes, "intent", inputs,
        [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name, shape in outputs], g.constants,
    )  # fmt: skip
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(made, opset_imports=opsets, producer_name="moed-recipe", ir_version=9)
    return model, g.outside


def save(model, outside, folder):
    """Writes model.onnx, and experts.bin with each tensor at a multiple of 16 KiB."""
    at = 0
    with (folder / "experts.bin").open("wb") as file:
        for tensor in model.graph.initializer:
            if tensor.name not in outside:
                continue
            data = tensor.raw_data
            file.write(bytes(at - file.tell()) + data)
            tensor.ClearField("raw_data")
            tensor.data_location = onnx.TensorProto.EXTERNAL
            for key, value in (("location", "experts.bin"), ("offset", at), ("length", len(data))):
                tensor.external_data.add(key=key, value=str(value))
            at = -(-(at + len(data)) // ALIGN) * ALIGN
    (folder / "model.onnx").write_bytes(model.SerializeToString())
