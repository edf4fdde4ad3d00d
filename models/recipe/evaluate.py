#!/usr/bin/env python3
"""Evaluates the bundle and what it is compared with; prints `name = value unit` lines.

    evaluate.py                        the bundle alone, all sets
    evaluate.py --peers                hassil, gazetteer-matcher, TF-IDF + SVM as well
    evaluate.py --runs control ...     other runs of train.py, in float32; `teacher` is the ensemble
    evaluate.py --moed PROGRAM         assist-mini end to end and slots through `moed resolve`

Sets: evalsets.py. Noise: `typos`, three words of ten with one edit; `speech`, what recognisers make
of speech; both seeded, the same for all systems.
"""

from __future__ import annotations

import json
import pathlib
import random
import re
import sys
import time
import tomllib

import numpy as np
import torch

import assist
import baselines
import bundle
import decode
import evalsets
import features
import noise
import prepare
import settings
import teacher
import train

NOISES = ("clean", "typos", "speech")


def disturbed(text: str, kind: str, makers) -> str:
    """The text with noise of a kind."""
    if kind == "clean":
        return text
    words = [[w, None] for w, _, _ in features.words(text)]
    done = makers.typed(words, 0.3) if kind == "typos" else makers.heard(words, 0.2)
    return re.sub(r" ([%°])", r"\1", " ".join(w for w, _ in done))


class Bundle:
    """The shipped model in onnxruntime, as the daemon runs it; slots by decode.py."""

    def __init__(self, folder, budget):
        manifest = tomllib.loads((folder / "manifest.toml").read_text())["intent"]
        self.run, self.budget, self.manifest = bundle.session(folder), budget, manifest
        self.k = []

    def __call__(self, text, home):
        ids = prepare.FEATURES.ids(text)
        if not ids:
            return settings.OUT, {}
        m = self.manifest
        intent, _, _, tags, k = bundle.answer(self.run, ids, self.budget, m["temperature"], m["threshold"], m["intents"])
        self.k.append(k)
        slots = decode.slots(text, intent, [m["tags"][t] for t in tags], home or {})
        return decode.adapted(intent, slots.get("name"), home or {}), slots


class Run:
    """A run of train.py in PyTorch, calibrated in the same way as the bundle."""

    def __init__(self, work, name, data):
        self.net = bundle.load_student(work, name)
        self.intents = [str(i) for i in data.intents]
        self.temperature, self.threshold, _ = bundle.calibrate(*bundle.dev_logits(self.net, data), len(self.intents) - 1)

    @torch.no_grad()
    def logits(self, text):
        """Intent [intents] and tag [L, tags] logits."""
        ids = torch.tensor(prepare.FEATURES.ids(text))
        mask = torch.ones(1, len(ids), dtype=torch.bool)
        intent, tags, _, _ = self.net(ids, mask, torch.full((1,), bundle.K_DEFAULT), bundle.allocation(self.net, 1.0))
        return intent[0], tags

    def __call__(self, text, home):
        logits, tags = self.logits(text)
        confidence, best = torch.softmax(logits / self.temperature, -1).max(-1)
        intent = self.intents[best] if confidence >= self.threshold else settings.OUT
        slots = decode.slots(text, intent, [settings.TAGS[t] for t in tags.argmax(-1)], home or {})
        return decode.adapted(intent, slots.get("name"), home or {}), slots


class Ensemble:
    """The teacher: MiniLM and the character-aware encoder. It has no tags of its own."""

    def __init__(self, work, data):
        self.big, self.small = teacher.load_minilm(work, data), teacher.load_encoder(work, teacher.CHARACTERS)
        self.intents = [str(i) for i in data.intents]

    @torch.no_grad()
    def __call__(self, text, home):
        ids = torch.tensor(prepare.FEATURES.ids(text))
        one = torch.log_softmax(self.big([text])[0][0], -1)
        two = torch.log_softmax(self.small(ids, torch.ones(1, len(ids), dtype=torch.bool), torch.ones(1))[0][0], -1)
        return self.intents[int((one + two).argmax())], None


def same(value, wanted) -> bool:
    """Whether a slot's value is the wanted one, up to case, punctuation and 10 against 10.0."""
    if isinstance(wanted, dict):
        wanted = wanted.get("value", wanted.get("in"))
    try:
        return float(value) == float(wanted)
    except (TypeError, ValueError):
        return evalsets.plain(str(value)) == evalsets.plain(str(wanted))


def score(system, cases, kind, language):
    """(intent accuracy, intent and slots or None, milliseconds per sentence), in percent."""
    makers = noise.Noise(settings.HERE / language, random.Random(f"{kind} 1"))
    right, full, judged = 0, 0, False
    spent = 0.0
    for case in cases:
        text = disturbed(case.text, kind, makers)
        start = time.perf_counter()
        intent, slots = system(text, case.home)
        spent += time.perf_counter() - start
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
    print(f"{prefix}_time = {table[name]['ha_tests clean'][2]:.2f} ms", flush=True)


def main():
    parser = settings.parser(__doc__.splitlines()[0])
    parser.add_argument("--bundle", type=pathlib.Path, default=settings.HERE.parent / "intent")
    parser.add_argument("--budget", type=float, default=1.0)
    parser.add_argument("--peers", action="store_true")
    parser.add_argument("--runs", nargs="*", default=[])
    parser.add_argument("--only", nargs="*", help="names of sets")
    parser.add_argument("--clean", action="store_true", help="without noise")
    parser.add_argument("--moed", type=pathlib.Path, help="the daemon's program, for `moed resolve`")
    parser.add_argument("--table", type=pathlib.Path, help="a JSON file for the figures")
    args = parser.parse_args()
    torch.set_num_threads(1)
    parts = sets(args.data, args.language)
    parts = {n: c for n, c in parts.items() if not args.only or n in args.only}
    table: dict = {}
    report("moed", Bundle(args.bundle, args.budget), parts, args, table)
    if args.moed:
        assist.end_to_end(args.moed, args.bundle, evalsets.assist_mini(args.data), parts.get("ha_tests", []), NOISES, disturbed, args.language)
    if args.peers or args.runs:
        data = train.Data(args.work)
    if args.peers:
        report("hassil", baselines.Hassil(args.language), parts, args, table)
        if args.language == "en":
            report("gazetteer", baselines.Gazetteer(), parts, args, table)
        texts = json.loads((args.work / "texts.json").read_text())
        report("svm", baselines.Svm(data, texts), parts, args, table)
    for name in args.runs:
        system = Ensemble(args.work, data) if name == "teacher" else Run(args.work, name, data)
        report(name, system, parts, args, table)
    if args.table:
        known = json.loads(args.table.read_text()) if args.table.exists() else {}
        args.table.write_text(json.dumps(known | table, indent=1))


if __name__ == "__main__":
    sys.exit(main())
