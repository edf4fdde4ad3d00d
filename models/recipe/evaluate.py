#!/usr/bin/env python3
"""Evaluates the bundle and what it is compared with; prints `name = value unit` lines.

    evaluate.py                        the bundle alone, all sets
    evaluate.py --peers                hassil, gazetteer-matcher, TF-IDF + SVM as well
    evaluate.py --runs control ...     other runs of train.py, in float32; `teacher` is the ensemble
    evaluate.py --moed PROGRAM         assist-mini end to end and slots through `moed resolve`

What can't be evaluated here says so in a line that begins with `#`. Sets: evalsets.py. Noise: `typos`, three words of ten with one edit; `speech`, what recognisers make
of speech; both seeded, the same for all systems.
"""

from __future__ import annotations

import json
import pathlib
import random
import re
import sys
import time

import assist
import baselines
import evalsets
import features
import noise
import prepare
import settings
import shipped

NOISES = ("clean", "typos", "speech")


def disturbed(text: str, kind: str, makers) -> str:
    """The text with noise of a kind."""
    if kind == "clean":
        return text
    words = [[w, None] for w, _, _ in features.words(text)]
    done = makers.typed(words, 0.3) if kind == "typos" else makers.heard(words, 0.2)
    return re.sub(r" ([%°])", r"\1", " ".join(w for w, _ in done))


def same(value, wanted) -> bool:
    """Whether a slot's value is the wanted one, up to case, punctuation and 10 against 10.0."""
    if isinstance(wanted, dict):
        wanted = wanted.get("value", wanted.get("in"))
    try:
        return float(value) == float(wanted)
    except (TypeError, ValueError):
        return evalsets.plain(str(value)) == evalsets.plain(str(wanted))


def score(system, cases, kind, language):
    """(intent accuracy, intent and slots or None, in percent, milliseconds of CPU per sentence)."""
    makers = noise.Noise(settings.HERE / language, random.Random(f"{kind} 1"))
    right, full, judged = 0, 0, False
    spent = 0.0
    texts = [disturbed(case.text, kind, makers) for case in cases]
    if hasattr(system, "read"):
        system.read(texts)
    for case, text in zip(cases, texts):
        start = time.process_time()
        intent, slots = system(text, case.home)
        spent += time.process_time() - start
        hit = intent in case.intents
        right += hit
        if case.slots is not None and slots is not None:
            judged = True
            full += hit and all(same(slots.get(k), v) for k, v in case.slots.items())
    return 100 * right / len(cases), 100 * full / len(cases) if judged else None, 1000 * spent / len(cases)


def sets(data, language):
    """{name: cases}; the names with `out` hold what must be refused."""
    found = {"ha_tests": evalsets.ha_tests(data, language)}
    if language == "en":
        found["hwu64_home"], found["hwu64_out"] = evalsets.hwu_valid(data)
        found["slurp_home"], found["slurp_out"] = evalsets.slurp_devel(data)
        found["clinc_out"] = evalsets.clinc_out(data)
        found["assist_mini"] = [assist.with_intents(case) for case in evalsets.assist_mini(data)]
    return found


def report(name, system, parts, args, table):
    """Prints and collects the figures of a system."""
    prefix = "intent" if name == "moed" else f"intent_{name}"
    for part, cases in parts.items():
        for kind in NOISES if not args.clean else NOISES[:1]:
            accuracy, full, spent = score(system, cases, kind, args.language)
            what = "false_accepts" if part.endswith("_out") else "accuracy"
            value = 100 - accuracy if part.endswith("_out") else accuracy
            print(f"{prefix}_{part}_{kind}_{what} = {value:.1f} %", flush=True)
            table.setdefault(name, {})[f"{part} {kind}"] = [value, full, spent]
            if full is not None:
                print(f"{prefix}_{part}_{kind}_intent_and_slots = {full:.1f} %", flush=True)
    if not hasattr(system, "read"):
        print(f"{prefix}_time = {next(iter(table[name].values()))[2]:.2f} ms", flush=True)


def label_only(args, system, table):
    """The bundle on HWU64 where nothing but a sentence's label says its intent: a second opinion on our mapping."""
    cases = evalsets.hwu_valid(args.data, by_label=True)[0]
    for kind in NOISES:
        found = score(system, cases, kind, args.language)
        table["moed"][f"hwu64_home_by_label {kind}"] = found
        print(f"intent_hwu64_home_by_label_{kind}_accuracy = {found[0]:.1f} %", flush=True)


def sizes(args, system, parts):
    """What the bundle weighs, and how much of it a sentence needs: the mean over the clean sentences."""
    weights, shares, counts = shipped.Weights(args.bundle), [], []
    for case in [case for cases in parts.values() for case in cases]:
        ids = prepare.FEATURES.ids(case.text)
        k = system.answer(ids)[4] or 0
        counts.append(k)
        shares.append(100 * weights.touched(ids, k) / weights.total)
    files = sum((args.bundle / name).stat().st_size for name in ("model.onnx", "experts.bin"))
    print(f"intent_files = {files / 1e6:.2f} MB")
    print(f"intent_weights = {weights.total / 1e6:.2f} MB")
    print(f"intent_weights_touched_per_sentence = {sum(shares) / len(shares):.1f} %")
    print(f"intent_weights_touched_per_sentence_max = {max(shares):.1f} %")
    print(f"intent_experts_per_layer = {sum(counts) / len(counts):.2f} of 16")


def missing(args, name) -> str | None:
    """Why a system can't be evaluated, if so."""
    import importlib.util

    needed = ["data.npz", "texts.json"] + {"svm": [], "teacher": ["minilm.pt", "teacher.npz"]}.get(name, [f"{name}.pt"])
    absent = [file for file in needed if not (args.work / file).exists()]
    if absent:
        return f"no {absent[0]} in {args.work}: `models/recipe/run --compare` makes it"
    if name != "svm" and importlib.util.find_spec("torch") is None:
        return "PyTorch is not installed: models/recipe/requirements.txt"
    return None


def others(args):
    """(name, system) of what the bundle is compared with."""
    if args.peers:
        yield "hassil", baselines.Hassil(args.language)
        if args.language == "en":
            yield "gazetteer", baselines.Gazetteer()
    for name in (["svm"] if args.peers else []) + args.runs:
        reason = missing(args, name)
        if reason:
            print(f"# intent_{name}: left out: {reason}", flush=True)
        elif name == "svm":
            yield name, baselines.Svm(args.work)
        else:
            import runs
            import torch
            import train

            torch.set_num_threads(1)
            data = train.Data(args.work)
            yield name, runs.Ensemble(args.work, data) if name == "teacher" else runs.Run(args.work, name, data)


def main():
    parser = settings.parser(__doc__.splitlines()[0])
    parser.add_argument("--bundle", type=pathlib.Path, default=settings.HERE.parent / "intent")
    parser.add_argument("--budget", type=float, default=1.0)
    parser.add_argument("--peers", action="store_true")
    parser.add_argument("--runs", nargs="*", default=[])
    parser.add_argument("--only", nargs="*", help="names of sets")
    parser.add_argument("--clean", action="store_true", help="without noise")
    parser.add_argument("--no-bundle", action="store_true", help="only what it is compared with")
    parser.add_argument("--moed", type=pathlib.Path, help="the daemon's program, for `moed resolve`")
    parser.add_argument("--table", type=pathlib.Path, help="a JSON file for the figures")
    args = parser.parse_args()
    parts = sets(args.data, args.language)
    parts = {n: c for n, c in parts.items() if not args.only or n in args.only}
    table: dict = {}
    if not args.no_bundle:
        system = shipped.Bundle(args.bundle, args.budget)
        report("moed", system, parts, args, table)
        if "hwu64_home" in parts:
            label_only(args, system, table)
        sizes(args, system, parts)
        if args.moed:
            assist.end_to_end(args.moed, args.bundle, parts, NOISES[:1] if args.clean else NOISES, disturbed, args.language, table)
        keep(args, table)
    for name, system in others(args):
        report(name, system, parts, args, table)
        keep(args, table)


def keep(args, table):
    """Adds the figures to the file of --table."""
    if args.table:
        known = json.loads(args.table.read_text()) if args.table.exists() else {}
        for name, row in table.items():
            known.setdefault(name, {}).update(row)
        args.table.write_text(json.dumps(known, indent=1))


if __name__ == "__main__":
    sys.exit(main())
