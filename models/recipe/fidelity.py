#!/usr/bin/env python3
"""What 8 bits cost, and whether onnxruntime and the daemon agree; prints `name = value unit` lines.

    fidelity.py NAME [--moed PROGRAM]    NAME: the run of train.py that the bundle was made of

Over all evaluation sentences, clean, at budget 1: the bundle in onnxruntime against the run in
float32 in PyTorch (intent, the set of experts of each layer, logits), and the daemon's own engine
against onnxruntime (the confidence). `top_k` counts sentences and layers.
"""

from __future__ import annotations

import json
import pathlib
import tomllib

import numpy as np
import onnx
import torch

import assist
import bundle
import evaluate
import model
import prepare
import settings
import shipped
import train

TOLERANCE = 0.02  # of a confidence, between engines


def observed(folder):
    """The bundle's session with the routers' choices as further outputs: (session, their names)."""
    graph = onnx.load(str(folder / "model.onnx"), load_external_data=False)
    names = [node.output[1] for node in graph.graph.node if node.op_type == "TopK"]
    for name in names:
        graph.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.INT64, None))
    return shipped.session(folder, graph.SerializeToString()), names


@torch.no_grad()
def in_float(net, ids):
    """(intent logits, k, sets of experts by layer) of a sentence in PyTorch."""
    chosen, hooks, kept = [], [], []

    def router(layer):
        def hook(_, __, affinity):
            chosen.append(torch.topk(torch.sigmoid(affinity[0]) + layer.bias, net.config.k_max).indices.tolist())

        return hook

    for block in net.blocks:
        if isinstance(block.ffn, model.Mixture):
            hooks.append(block.ffn.router.register_forward_hook(router(block.ffn)))
    allocate = bundle.allocation(net, 1.0)

    def counted(seen):
        kept.append(allocate(seen))
        return kept[0]

    grams = torch.tensor(ids)
    logits = net(grams, torch.ones(1, len(ids), dtype=torch.bool), torch.ones(1, dtype=torch.long), counted)[0][0]
    for hook in hooks:
        hook.remove()
    k = int(kept[0][0])
    return logits.numpy(), k, [set(row[:k]) for row in chosen]


def main():
    parser = settings.parser(__doc__.splitlines()[0])
    parser.add_argument("name")
    parser.add_argument("--bundle", type=pathlib.Path, default=settings.HERE.parent / "intent")
    parser.add_argument("--moed", type=pathlib.Path, help="the daemon's program, for `moed resolve`")
    args = parser.parse_args()
    torch.set_num_threads(1)
    meta = tomllib.loads((args.bundle / "manifest.toml").read_text())["intent"]
    net, *chosen = bundle.calibrated(args.work, args.name, train.Data(args.work))
    if chosen != [meta["temperature"], meta["threshold"]]:
        raise SystemExit(f"{args.bundle}: not made of {args.name}: `bundle.py {args.name}` makes it")
    run, names = observed(args.bundle)
    cases = [(part, case) for part, found in evaluate.sets(args.data, args.language).items() for case in found]
    same_experts, experts, errors = 0, 0, []
    answers = {"float": [], "int8": []}
    for _, case in cases:
        ids = prepare.FEATURES.ids(case.text)
        logits, _, k, *ranks = run.run(["intent_logits", "tag_logits", "k", *names], shipped.feeds(run, ids, 1.0))
        exact, wanted_k, wanted = in_float(net, ids)
        for rank, chosen in zip(ranks, wanted):
            experts += 1
            same_experts += int(k[0]) == wanted_k and set(rank[0][: int(k[0])].tolist()) == chosen
        errors.append(np.abs(logits - exact).max())
        for name, values in (("float", exact), ("int8", logits)):
            scaled = np.exp((values - values.max()) / meta["temperature"])
            sure = (scaled / scaled.sum()).max()
            answers[name].append((meta["intents"][int(values.argmax())] if sure >= meta["threshold"] else settings.OUT, float(sure)))
    right = {n: np.array([a in c.intents for (a, _), (_, c) in zip(found, cases)]) for n, found in answers.items()}
    equal = np.mean([a[0] == b[0] for a, b in zip(answers["float"], answers["int8"])])
    figures = {
        "sentences": (len(cases), "sentences"), "int8_loss": (100 * (right["float"].mean() - right["int8"].mean()), "points"),
        "int8_same_intent": (100 * equal, "%"), "top_k_agreement": (100 * same_experts / experts, "%"),
        "logit_error_median": (float(np.median(errors)), "logits"), "logit_error_p99": (float(np.quantile(errors, 0.99)), "logits"),
    }  # fmt: skip
    if args.moed:
        figures |= against_engine(args, cases, answers["int8"])
    for name, (value, unit) in figures.items():
        print(f"intent_{name} = {value:.3f} {unit}")
    (args.work / "fidelity.json").write_text(json.dumps(figures))


def against_engine(args, cases, answers):
    """The engine's confidences against onnxruntime's."""
    found = assist.resolve(args.moed, args.bundle, {}, [case.text for _, case in cases])
    off = np.array([abs(theirs["confidence"] - sure) for theirs, (_, sure) in zip(found, answers)])
    return {
        "engine_within_tolerance": (100 * float((off <= TOLERANCE).mean()), "%"),
        "engine_confidence_error_max": (float(off.max()), "probability"),
    }


if __name__ == "__main__":
    main()
