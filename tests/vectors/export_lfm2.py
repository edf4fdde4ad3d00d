#!/usr/bin/env python3
"""Adds the experts of a really exported LFM2-MoE decoder to the test vectors.

    python -m venv ~/.cache/venv-export
    ~/.cache/venv-export/bin/pip install -r tests/vectors/requirements-export.txt
    ~/.cache/venv-export/bin/python tests/vectors/export_lfm2.py

Makes a tiny LFM2-MoE with random weights, exports it with onnxruntime-genai's
model builder (float32, and int4 decoder with int8 or int4 experts, block-wise
and per channel), runs each export in onnxruntime on a few tokens with the
inputs of its expert nodes as extra outputs, and writes each such node as a
model of its own: tests/data/operators/lfm2-*.onnx with what the decoder fed
it, and the output that oracle.py computes. The nodes, with their attributes,
empty inputs and initializers, are as the builder wrote them.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper

import generate
import oracle

TOKENS = 6
VOCABULARY = 260
HEAD_SIZE = 16
# Name in the vectors, builder's precision, builder's extra options, nodes kept.
EXPORTS = [
    ("lfm2-f32", "fp32", [], 1),
    ("lfm2-int8", "int4", ["moe_quant_type=int8"], 2),
    ("lfm2-int8-channel", "int4", ["moe_quant_type=int8", "qmoe_block_size=0"], 1),
    ("lfm2-int4", "int4", ["moe_quant_type=int4"], 2),
    ("lfm2-int4-channel", "int4", ["moe_quant_type=int4", "qmoe_block_size=0"], 1),
]


def make_checkpoint(folder):
    """A Hugging Face checkpoint with random weights, and a tokenizer of made-up words."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import AutoModelForCausalLM, Lfm2MoeConfig, PreTrainedTokenizerFast

    torch.manual_seed(20)
    torch.set_num_threads(1)
    special = {"unk_token": "<unk>", "eos_token": "<eos>", "bos_token": "<bos>", "pad_token": "<pad>"}
    words = [f"w{i}" for i in range(VOCABULARY - len(special))] + list(special.values())
    ids = {word: i for i, word in enumerate(words)}
    config = Lfm2MoeConfig(
        vocab_size=VOCABULARY,
        hidden_size=64,
        intermediate_size=128,
        moe_intermediate_size=32,
        num_hidden_layers=3,
        layer_types=["conv", "full_attention", "conv"],
        num_dense_layers=1,
        num_attention_heads=64 // HEAD_SIZE,
        num_key_value_heads=2,
        num_experts=4,
        num_experts_per_tok=2,
        use_expert_bias=True,
        norm_topk_prob=True,
        routed_scaling_factor=1.0,
        max_position_embeddings=128,
        unk_token_id=ids["<unk>"],
        eos_token_id=ids["<eos>"],
        bos_token_id=ids["<bos>"],
        pad_token_id=ids["<pad>"],
    )
    model = AutoModelForCausalLM.from_config(config).float().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=0.1)
        for name, buffer in model.named_buffers():
            if name.endswith("expert_bias"):
                buffer.normal_(std=0.1)
    model.save_pretrained(folder)
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)


def export(checkpoint, folder, precision, options):
    command = [sys.executable, "-m", "onnxruntime_genai.models.builder"]
    command += [
        "-m",
        checkpoint,
        "-i",
        checkpoint,
        "-o",
        folder,
        "-p",
        precision,
        "-e",
        "cpu",
        "-c",
        checkpoint,
    ]
    if options:
        command += ["--extra_options", *options]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(
            f"{' '.join(map(str, command))} failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
        )


def decoder_feeds(session, tokens):
    """The first step of a conversation: the tokens, and an empty past."""
    feeds = {}
    symbols = {"batch_size": 1, "past_sequence_length": 0, "kv_cache_dim": HEAD_SIZE}
    for slot in session.get_inputs():
        dims = [dim if isinstance(dim, int) else symbols.get(dim, len(tokens)) for dim in slot.shape]
        kind = {"tensor(int64)": np.int64, "tensor(int32)": np.int32, "tensor(float)": np.float32}[slot.type]
        if slot.name == "input_ids":
            feeds[slot.name] = np.array([tokens], kind)
        elif slot.name == "position_ids":
            feeds[slot.name] = np.arange(len(tokens), dtype=kind)[None]
        elif slot.name == "attention_mask":
            feeds[slot.name] = np.ones((1, len(tokens)), kind)
        else:
            feeds[slot.name] = np.zeros(dims, kind)
    return feeds


def capture(path, model, nodes, tokens):
    """Runs the decoder; {name: value} of the nodes' variable inputs and outputs."""
    constants = {tensor.name for tensor in model.graph.initializer}
    names = []
    for node in nodes:
        names += [n for n in [*node.input, *node.output] if n and n not in constants and n not in names]
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    for name in names:
        # Both the activations and the router's logits are float32 here.
        probe.graph.output.append(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    probed = path.with_name("probed.onnx")
    onnx.save(probe, probed)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(probed), options, providers=["CPUExecutionProvider"])
    return dict(zip(names, session.run(names, decoder_feeds(session, tokens))))


def mixture_of(node, slots):
    """generate.Mixture with the node's attributes and sizes."""
    values = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    known = {
        "k", "activation_type", "normalize_routing_weights", "swiglu_fusion", "activation_alpha",
        "activation_beta", "swiglu_limit", "expert_weight_bits", "block_size", "use_sparse_mixer",
    }  # fmt: skip
    if unknown := set(values) - known:
        raise SystemExit(f"{node.name}: the builder wrote attributes this script does not know: {unknown}")
    act = values["activation_type"].decode()
    bits = values.get("expert_weight_bits", 4) if node.op_type == "QMoE" else 8
    experts, hidden, packed = slots["fc2_experts_weights"].shape
    return generate.Mixture(
        op=node.op_type,
        experts=experts,
        hidden=hidden,
        inter=packed * 8 // bits if node.op_type == "QMoE" else packed,
        k=values["k"],
        act=act,
        normalize=values["normalize_routing_weights"],
        bits=bits,
        block=max(values.get("block_size", 0), 0),
        fusion=values["swiglu_fusion"],
        alpha=values["activation_alpha"],
        beta=values["activation_beta"],
        limit=values.get("swiglu_limit"),
    )


def cut_out(name, node, constants, captured):
    """(Case, distance to the nearest rounding tie, error of onnxruntime in the decoder)."""
    order = generate.QMOE_SLOTS if node.op_type == "QMoE" else generate.MOE_SLOTS
    new, inputs, initializers, feeds, slots = helper.make_node("Identity", [], []), {}, {}, {}, {}
    new.CopyFrom(node)
    for i, (slot, source) in enumerate(zip(order, node.input)):
        if source in constants:
            initializers[source] = slots[slot] = constants[source]
        elif source:
            new.input[i] = {"input": "x", "router_probs": "router"}.get(slot, slot)
            feeds[new.input[i]] = captured[source]
    new.output[0] = "y"
    x, router = feeds["x"], feeds["router"]
    inputs = {
        "x": (x.dtype, ["batch", "sequence"][: x.ndim - 1] + [x.shape[-1]]),
        "router": (router.dtype, ["tokens", router.shape[-1]]),
    }
    spec = mixture_of(node, slots)
    rounding = oracle.Rounding() if spec.int8 else None
    y = generate.mixture_output(spec, feeds, slots, rounding)
    outside = np.abs(captured[node.output[0]] - y).max() / np.sqrt((y**2).mean())
    case = generate.Case(
        name=name,
        operator=node.op_type,
        model=generate.make_model([new], inputs, {"y": inputs["x"]}, initializers),
        values=feeds | {"y": y.astype(x.dtype)},
        tolerance=generate.default_tolerance(spec),
        activations="int8" if spec.int8 else "f32",
        note="a node of an LFM2-MoE with random weights, exported by onnxruntime-genai, and its inputs there",
    )
    return case, rounding.nearest if rounding else 0.5, outside


def cut_cases(name, folder, keep):
    path = folder / "model.onnx"
    model = onnx.load(path)
    constants = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    nodes = [n for n in model.graph.node if n.op_type in ("MoE", "QMoE")][:keep]
    if len(nodes) < keep:
        raise SystemExit(f"{name}: {len(nodes)} expert nodes, expected {keep}")
    for seed in range(50):
        tokens = np.random.default_rng(seed).integers(0, VOCABULARY - 4, TOKENS)
        captured = capture(path, model, nodes, tokens)
        cut = [cut_out(f"{name}-layer{i + 1}", n, constants, captured) for i, n in enumerate(nodes)]
        # Two nodes at once are hard to keep clear by generate.ROUNDING_GAP.
        if min(nearest for _, nearest, _ in cut) >= generate.ROUNDING_GAP / 2:
            break
    else:
        raise SystemExit(f"{name}: every choice of tokens is near a tie in rounding")
    for case, nearest, outside in cut:
        print(
            f"{case.name}: {outside:.1e} from onnxruntime's own output in the decoder, {nearest:.1e} from a tie"
        )
        yield case


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--out", type=pathlib.Path, default=generate.ROOT, help="as for generate.py (tests/data)"
    )
    parser.add_argument(
        "--work", type=pathlib.Path, help="a folder to keep the checkpoint and the exports in"
    )
    arguments = parser.parse_args()
    operators = arguments.out / "operators"
    with tempfile.TemporaryDirectory() as temporary:
        work = arguments.work or pathlib.Path(temporary)
        checkpoint = work / "checkpoint"
        make_checkpoint(checkpoint)
        entries = []
        for name, precision, options, keep in EXPORTS:
            export(checkpoint, work / name, precision, options)
            entries += [generate.write_case(operators, case) for case in cut_cases(name, work / name, keep)]
    generate.merge_index(operators / "index.json", entries, keep=lambda n: not generate.is_exported(n))
    print(f"{len(entries)} cases in {operators}")


if __name__ == "__main__":
    main()
