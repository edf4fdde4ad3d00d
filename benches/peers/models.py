"""Makes the models and inputs that moed and its peers are compared on.

    python models.py DIRECTORY

Every model is `SHAPE_VARIANT.onnx` with its weights in `SHAPE_VARIANT.bin` (ONNX external data,
every tensor at a multiple of 16 KiB, as in a moed bundle). Inputs are raw little-endian f32 files,
`SHAPE_rowsN_x.f32` `[SETS, N, hidden]` and `SHAPE_rowsN_router_probs.f32` `[SETS, N, experts]`: so
many sets that the chosen experts change from run to run. Weights are random: speed does not depend
on them. What is there already is kept.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

# Part of the directory's name: raise it when what is made changes.
FORMAT = 2
ALIGNMENT = 16 << 10
SETS = 32
ROWS = (1, 8, 64)
BLOCK = 32
# Names that the graphs' inputs have, and the input files with them.
X, ROUTER = "x", "router_probs"
# The router's inputs of SAME.
ROUTER_SAME = "router_same"


@dataclass(frozen=True)
class Shape:
    hidden: int
    inter: int
    experts: int
    k: int


SHAPES = {
    "s": Shape(hidden=256, inter=512, experts=16, k=2),
    "m": Shape(hidden=512, inter=1024, experts=32, k=2),
    "g": Shape(hidden=1024, inter=512, experts=32, k=8),
}

# Layers of experts, and dense layers as large as the experts of one row, or as all of them.
SPARSE = ("q8_b32", "q8_chan", "q4_b32", "moe_f32")
DENSE = ("dense_act_nb8", "dense_act_f32", "dense_all_nb8")
VARIANTS = SPARSE + DENSE
# The call and nothing else: what each side's way in and out costs.
EMPTY = "empty"
# q8_b32 with inputs that send every row to the same experts: what sparse costs when it reads no
# more than a dense layer of the same active size does.
SAME = "q8_b32_same"


class Weights:
    """Initializers whose data goes to one file, each at an aligned offset."""

    def __init__(self, path):
        self.path = path
        self.file = path.open("wb")
        self.protos = []

    def add(self, name, array):
        start = -(-self.file.tell() // ALIGNMENT) * ALIGNMENT
        self.file.write(bytes(start - self.file.tell()))
        array.tofile(self.file)
        proto = TensorProto(name=name, dims=array.shape)
        proto.data_type = helper.np_dtype_to_tensor_dtype(array.dtype)
        proto.data_location = TensorProto.EXTERNAL
        place = {"location": self.path.name, "offset": start, "length": array.nbytes}
        for key, value in place.items():
            proto.external_data.add(key=key, value=str(value))
        self.protos.append(proto)
        return name


def floats(random, fan_in, shape):
    """Such that a product with them keeps the size of what is multiplied."""
    return random.standard_normal(shape, dtype=np.float32) / np.float32(np.sqrt(fan_in))


def codes(random, shape, bits):
    """Packed codes for `shape`, whose last dimension is what a product sums over."""
    return random.integers(0, 256, (*shape[:-1], shape[-1] * bits // 8), dtype=np.uint8)


def scales(random, fan_in, shape, bits):
    """Of either sign, as onnxruntime-genai's exporter makes them; same size as `floats`."""
    spread = 2**bits / np.sqrt(12)
    sizes = random.uniform(0.5, 1.5, shape) * random.choice([-1, 1], shape)
    return (sizes / (spread * np.sqrt(fan_in))).astype(np.float32)


def experts_node(shape, variant, weights, random):
    def projection(name, n, k):
        dims = (shape.experts, n, k)
        if variant == "moe_f32":
            return [weights.add(name, floats(random, k, dims)), ""]
        bits = int(variant[1])
        per_row = dims[:2] if variant.endswith("_chan") else (*dims[:2], k // BLOCK)
        return [
            weights.add(name, codes(random, dims, bits)),
            weights.add(f"{name}_scales", scales(random, k, per_row, bits)),
            "",
        ]

    inputs = [
        X,
        ROUTER,
        *projection("fc1", 2 * shape.inter, shape.hidden),
        *projection("fc2", shape.hidden, shape.inter),
    ]
    attributes = dict(k=shape.k, activation_type="swiglu", swiglu_fusion=1, activation_alpha=1.0,
                      activation_beta=0.0, normalize_routing_weights=1)
    if variant == "moe_f32":
        return helper.make_node("MoE", inputs, ["y"], domain="com.microsoft", **attributes)
    attributes["expert_weight_bits"] = int(variant[1])
    if not variant.endswith("_chan"):
        attributes["block_size"] = BLOCK
    if variant.startswith("q4"):
        # Integer activations, which onnxruntime takes of itself for 8 bits only.
        attributes["accuracy_level"] = 4
    return helper.make_node("QMoE", inputs, ["y"], domain="com.microsoft", **attributes)


def dense_nodes(shape, variant, weights, random):
    """SwiGLU: `(silu(x Wg) * x Wu) Wd`, gate and linear part in one product."""
    inter = shape.inter * (shape.k if "_act_" in variant else shape.experts)

    def linear(x, name, n, k, y):
        if variant.endswith("_f32"):
            return helper.make_node("MatMul", [x, weights.add(name, floats(random, k, (k, n)))], [y])
        packed = codes(random, (n, k), 8).reshape(n, k // BLOCK, BLOCK)
        inputs = [
            x,
            weights.add(name, packed),
            weights.add(f"{name}_scales", scales(random, k, (n, k // BLOCK), 8)),
        ]
        return helper.make_node("MatMulNBits", inputs, [y], domain="com.microsoft", K=k, N=n,
                                bits=8, block_size=BLOCK, accuracy_level=4)

    return [
        linear(X, "fc1", 2 * inter, shape.hidden, "h"),
        helper.make_node("Split", ["h"], ["gate", "linear"], axis=1, num_outputs=2),
        helper.make_node("Sigmoid", ["gate"], ["sigmoid"]),
        helper.make_node("Mul", ["gate", "sigmoid"], ["silu"]),
        helper.make_node("Mul", ["silu", "linear"], ["inner"]),
        linear("inner", "fc2", shape.hidden, inter, "y"),
    ]


def make_model(directory, name, shape, variant):
    path = directory / f"{name}.onnx"
    if path.exists():
        return
    random = np.random.default_rng(2)
    weights = Weights(directory / f"{name}.bin")
    ports = [helper.make_tensor_value_info(X, TensorProto.FLOAT, ["rows", shape.hidden])]
    if variant == EMPTY:
        nodes = [helper.make_node("Neg", [X], ["y"])]
    elif variant in DENSE:
        nodes = dense_nodes(shape, variant, weights, random)
    else:
        nodes = [experts_node(shape, variant, weights, random)]
        router = ["rows", shape.experts]
        ports.append(helper.make_tensor_value_info(ROUTER, TensorProto.FLOAT, router))
    weights.file.close()
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", shape.hidden])
    graph = helper.make_graph(nodes, name, ports, [y], weights.protos)
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    # The model last, and whole: it stands for both files.
    part = path.with_suffix(".part")
    part.write_bytes(model.SerializeToString())
    part.rename(path)


def input_path(directory, shape_name, rows, port):
    return directory / f"{shape_name}_rows{rows}_{port}.f32"


def make_inputs(directory, shape_name, shape):
    random = np.random.default_rng(1)
    for rows in ROWS:
        for port, width, size in ((X, shape.hidden, 1), (ROUTER, shape.experts, 2)):
            values = random.standard_normal((SETS, rows, width), dtype=np.float32)
            (values * np.float32(size)).tofile(input_path(directory, shape_name, rows, port))
        same = np.tile(np.arange(shape.experts, dtype=np.float32), (SETS, rows, 1))
        same.tofile(input_path(directory, shape_name, rows, ROUTER_SAME))


def input_path_of(directory, shape_name, rows, port, variant):
    """The file that a model's input `port` reads."""
    file = ROUTER_SAME if (port, variant) == (ROUTER, SAME) else port
    return input_path(directory, shape_name, rows, file)


def read_inputs(directory, shape_name, rows, variant):
    """`SETS` dictionaries: port to array."""
    shape = SHAPES[shape_name]
    arrays = {}
    for port, width in ((X, shape.hidden), (ROUTER, shape.experts)):
        path = input_path_of(directory, shape_name, rows, port, variant)
        arrays[port] = np.fromfile(path, "<f4").reshape(SETS, rows, width)
    return [{port: array[i] for port, array in arrays.items()} for i in range(SETS)]


def make(directory, shapes=tuple(SHAPES), variants=(*VARIANTS, EMPTY)):
    directory.mkdir(parents=True, exist_ok=True)
    for shape_name in shapes:
        shape = SHAPES[shape_name]
        make_inputs(directory, shape_name, shape)
        for variant in variants:
            make_model(directory, f"{shape_name}_{variant}", shape, variant)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    make(Path(sys.argv[1]))
