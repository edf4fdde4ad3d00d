#!/usr/bin/env python3
"""Writes MODEL_CARD.md and plot.svg of the bundle from the figures of the other programs, then the manifest again.

    card.py NAME
"""

from __future__ import annotations

import json
import pathlib
import tomllib

import torch

import bundle
import graph
import plot
import settings
import train

SETS = ["ha_tests", "hwu64_home", "slurp_home", "assist_mini", "hwu64_out", "slurp_out", "clinc_out"]
NAMES = {
    "moed": "**this bundle** (int8)", "student": "student, half-way (float32)", "control": "without a teacher (float32)",
    "per_word": "routed per word (float32)", "dense_active": "dense, equal active size", "dense_total": "dense, equal total size",
    "teacher": "teacher (MiniLM + control)", "hassil": "hassil 3.12.1, strict", "gazetteer": "gazetteer-matcher 1.2.0",
    "svm": "TF-IDF + linear SVM",
}  # fmt: skip
WORDS, GRAMS = 8, 14  # of a usual sentence: for the bytes that it touches


def touched(net, k: float) -> tuple[int, int]:
    """(int8 bytes of weights, bytes that a sentence of WORDS words touches with k experts); scales count."""
    c = net.config
    scale = 1 + 4 / graph.BLOCK
    table = c.buckets * (c.width + 4)
    rows = WORDS * GRAMS * (c.width + 4)
    layer = 4 * c.width * c.width
    expert = 3 * c.width * c.hidden * scale
    dense = (c.layers * (layer + 3 * c.width * (c.shared if c.experts else c.hidden)) + 2 * c.width * c.intents + c.width * c.tags) * scale
    distinct = k if c.route == "sentence" else c.experts * (1 - (1 - k / c.experts) ** WORDS)
    total = table + dense + c.layers * c.experts * expert
    return round(total), round(rows + dense + c.layers * (distinct * expert if c.experts else 0))


def table(figures: dict) -> str:
    """Accuracy on home commands and false accepts, clean / typos / speech, for each system."""
    def cell(row, name):
        values = [row.get(f"{name} {kind}") for kind in ("clean", "typos", "speech")]
        return " / ".join("-" if v is None else f"{v[0]:.1f}" for v in values)

    lines = ["| % | " + " | ".join(SETS) + " | ms |", "|---|" + "---|" * (len(SETS) + 1)]
    for name, label in NAMES.items():
        if name in figures:
            row = figures[name]
            spent = next((v[2] for v in row.values()), 0)
            lines.append(f"| {label} | " + " | ".join(cell(row, part) for part in SETS) + f" | {spent:.1f} |")
    return "\n".join(lines)


def slots_table(figures: dict) -> str:
    """Intent and all slots right on Home Assistant's tests."""
    lines = ["| % | clean | typos | speech |", "|---|---|---|---|"]
    for name, label in NAMES.items():
        values = [figures.get(name, {}).get(f"ha_tests {kind}") for kind in ("clean", "typos", "speech")]
        if values[0] and values[0][1] is not None:
            lines.append(f"| {label} | " + " | ".join("-" if v is None else f"{v[1]:.1f}" for v in values) + " |")
    return "\n".join(lines)


def costs(work: pathlib.Path) -> str:
    """What each training took, and the sizes of the models."""
    lines = ["| run | steps | CPU seconds | int8 bytes | touched by a sentence |", "|---|---|---|---|---|"]
    for name in ["minilm", *train.RUNS, "final"]:
        file = work / f"{name}.pt"
        if not file.exists():
            continue
        saved = torch.load(file, weights_only=False)
        sizes = ("-", "-")
        if name != "minilm":
            sizes = touched(bundle.load_student(work, name), bundle.K_DEFAULT)
        lines.append(f"| {name} | {saved['step']} | {saved['seconds']:.0f} | {sizes[0]} | {sizes[1]} |")
    return "\n".join(lines)


def allocator_table(curves: dict) -> str:
    """The allocator against a fixed k and top-p."""
    lines = ["| rule | setting | mean k | right intent, % |", "|---|---|---|---|"]
    for rule, points in curves.items():
        lines += [f"| {rule} | {setting} | {k:.2f} | {accuracy:.2f} |" for setting, k, accuracy in points]
    return "\n".join(lines)


def main():
    parser = settings.parser(__doc__.splitlines()[0])
    parser.add_argument("name")
    parser.add_argument("--bundle", type=pathlib.Path, default=settings.HERE.parent / "intent")
    args = parser.parse_args()
    net = bundle.load_student(args.work, args.name)
    meta = tomllib.loads((args.bundle / "manifest.toml").read_text())["intent"]
    figures = json.loads((args.work / "table.json").read_text())
    curves_file = args.work / f"allocator-{args.name}.json"
    curves = json.loads(curves_file.read_text()) if curves_file.exists() else {}
    if curves:
        plot.write(curves_file, args.bundle / "plot.svg")
    sizes = {k: touched(net, k) for k in range(1, net.config.k_max + 1)}
    text = (settings.HERE / "card.md").read_text()
    fields = {
        "TABLE": table(figures), "SLOTS": slots_table(figures), "COSTS": costs(args.work), "ALLOCATOR": allocator_table(curves),
        "TOTAL": f"{sizes[1][0] / 1e6:.2f}", "PARAMETERS": f"{sum(p.numel() for n, p in net.named_parameters() if not n.startswith('label')) / 1e6:.2f}",
        "SHARES": ", ".join(f"k = {k}: {100 * part / total:.1f}%" for k, (total, part) in sizes.items()),
        "TEMPERATURE": str(meta["temperature"]), "THRESHOLD": str(meta["threshold"]), "WORDS": str(WORDS),
    }  # fmt: skip
    for field, value in fields.items():
        text = text.replace(f"@{field}@", value)
    (args.bundle / "MODEL_CARD.md").write_text(text)
    bundle.manifest(args.bundle, args.language, net, meta["intents"], meta["temperature"], meta["threshold"])


if __name__ == "__main__":
    main()
