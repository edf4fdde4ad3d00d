"""Drives ggml.c, with a shape's experts in ggml's own format."""

import onnx
import models
import moed
import numpy as np
from onnx import numpy_helper

Q8_0 = np.dtype([("scale", "<f2"), ("codes", "i1", models.BLOCK)])


class Ggml:
    """q8_b32 of a shape: the same codes, their scales rounded to f16."""

    def __init__(self, peer, directory, shape_name):
        self.peer, self.directory, self.name = peer, directory, shape_name
        self.shape = models.SHAPES[shape_name]
        files = make_weights(directory, shape_name)
        sizes = (self.shape.hidden, self.shape.inter, self.shape.experts)
        peer.ask("load", self.name, *sizes, *files)

    def inputs(self, rows):
        x = models.input_path(self.directory, self.name, rows, models.X)
        routes = make_routes(self.directory, self.name, rows)
        self.peer.ask("inputs", self.name, rows, self.shape.k, x, *routes)

    run, output = moed.run, moed.output

    def total(self, rows):
        """(tenth percentile in us, runs)"""
        total = self.peer.ask("total", self.name, rows)
        return int(total["cpu_p10_ns"]) / 1e3, int(total["runs"])


def make_weights(directory, shape_name):
    """Files of Q8_0 blocks for both projections, made once."""
    paths = [directory / f"{shape_name}_{name}.q8_0" for name in ("fc1", "fc2")]
    if all(path.exists() for path in paths):
        return paths
    model = onnx.load(directory / f"{shape_name}_q8_b32.onnx")
    arrays = {proto.name: numpy_helper.to_array(proto) for proto in model.graph.initializer}
    for name, path in zip(("fc1", "fc2"), paths):
        codes = arrays[name].reshape(*arrays[f"{name}_scales"].shape, models.BLOCK)
        blocks = np.empty(codes.shape[:-1], Q8_0)
        blocks["scale"] = arrays[f"{name}_scales"]
        blocks["codes"] = codes.astype(np.int16) - 128
        if name == "fc1":
            # Gate and linear rows take turns here; ggml wants all of one before all of the other.
            blocks = np.concatenate([blocks[:, 0::2], blocks[:, 1::2]], axis=1)
        part = path.with_suffix(".part")
        np.ascontiguousarray(blocks).tofile(part)
        part.rename(path)
    return paths


def make_routes(directory, shape_name, rows):
    """Files of the experts that each row chooses, and of their weights: softmax over the chosen."""
    shape = models.SHAPES[shape_name]
    path = models.input_path(directory, shape_name, rows, models.ROUTER)
    logits = np.fromfile(path, "<f4").reshape(models.SETS, rows, shape.experts)
    chosen = np.argsort(logits, axis=-1)[..., -shape.k :]
    raised = np.exp(np.take_along_axis(logits, chosen, axis=-1))
    weights = raised / raised.sum(axis=-1, keepdims=True)
    files = {"ids": chosen.astype("<i4"), "weights": weights.astype("<f4")}
    paths = [path.with_suffix(f".{name}") for name in files]
    for path, array in zip(paths, files.values()):
        array.tofile(path)
    return paths
