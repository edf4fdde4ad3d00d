#!/usr/bin/env python3
"""Exports a trained student as the bundle models/intent: graph, experts, golden answers, manifest.

    bundle.py NAME [--out FOLDER]    NAME: a run of train.py; its allocator from WORK/allocator-NAME.pt

Temperature, shift and threshold are chosen on sentences kept out of training, never on evaluation
sets; WORK/calibration-NAME.json says what each would cost.
"""

from __future__ import annotations

import hashlib
import json
import pathlib

import numpy as np
import torch
from torch.nn import functional as F

import graph
import prepare
import settings
import shipped
import teacher
import train

VERSION = "1.0.0"
K_DEFAULT = 2
FALSE_ACCEPTS = 1.5  # percent of the out-of-scope sentences kept out: half of what is promised, as other speakers differ
GOLDEN = [
    "turn on the kitchen light", "Turn off all the lights upstairs!", "tunr of the bedroom lamp plaese", "set the brightness to 50%",
    "dim the living room lights to twenty percent", "open the irrigation valve", "close the garage door", "lock the front door",
    "unlock smart lock", "start the vacuum in the living room", "return rover to base", "vacuum the hallway",
    "add milk to my shopping list", "Put history homework on personal tasks todo list", "remove eggs from the groceries list",
    "set the thermostat to 21.5°", "what's the temperature in the office", "is the front door locked", "are any windows open",
    "set a timer for 10 minutes", "set a pizza timer for one hour and fifteen minutes", "cancel all timers",
    "add five minutes to the pasta timer", "pause the music", "skip to the next track on the outdoor speakers",
    "turn the volume down to 30%", "it's too loud", "play some jazz in the dining room", "what's the weather like in London?",
    "what time is it", "who wrote hamlet", "Tom’s lamp, please", "never mind", "mute",
]  # fmt: skip


def load_student(work, name):
    """The student with its allocator; one that always answers K_DEFAULT if none was trained."""
    net = teacher.load_encoder(work, name)
    if not net.config.experts:
        return net
    file = work / f"allocator-{name}.pt"
    if file.exists():
        net.allocator.load_state_dict(torch.load(file))
    else:
        for parameter in net.allocator.parameters():
            parameter.data.zero_()
        net.allocator.out.bias.data[K_DEFAULT - 1] = 1
    return net


@torch.no_grad()
def dev_logits(net, data, budget=1.0):
    """Intent logits, intents, groups and corpora of the sentences kept out."""
    rows = np.flatnonzero(data.arrays["dev"] & (data.arrays["intent"] >= 0))
    group = data.arrays["group"][rows]
    rows = np.concatenate([rows[group == g][:: max(1, (group == g).sum() // 3000)] for g in range(3)])
    found = []
    for part in np.array_split(rows, len(rows) // 256):
        grams, mask, _ = data.batch(part)
        found.append(net(grams, mask, torch.full((len(part),), K_DEFAULT), allocation(net, budget))[0])
    corpus = np.array([str(label).split(":")[0] for label in data.labels])[data.arrays["label"][rows]]
    return torch.cat(found), torch.from_numpy(data.arrays["intent"][rows].astype(np.int64)), data.arrays["group"][rows], corpus


def allocation(net, budget):
    """The allocator at a budget, as Encoder.forward takes it."""
    if not net.config.experts:
        return None
    return lambda seen: net.allocator(seen, torch.full((len(seen),), budget)).argmax(-1) + 1


def calibrate(logits, intents, groups, corpus, out):
    """(temperature, shift, threshold). The temperature of the least loss; then, of what lets in at most
    FALSE_ACCEPTS of any corpus, the shift of out-of-scope's logit and the threshold that keep most home
    commands right. The shift refuses what is foreign, the threshold what is unclear."""
    temperatures = np.arange(0.5, 3.01, 0.05)
    losses = [F.cross_entropy(logits / t, intents).item() for t in temperatures]
    temperature = round(float(temperatures[int(np.argmin(losses))]), 3)
    best = None
    for shift in np.arange(0, 2.01, 0.25):
        moved = shifted(logits, temperature, shift)
        for threshold in np.arange(0.2, 0.96, 0.02):
            row = trade_off(moved / temperature, intents, groups, corpus, out, float(threshold))
            gain = row["templates"] + row["home"]
            if max(row["hwu"], row["clinc"]) <= FALSE_ACCEPTS and (best is None or gain > best[0]):
                best = (gain, float(shift), round(float(threshold), 3))
    if best is None:
        raise SystemExit(f"no threshold keeps false accepts at {FALSE_ACCEPTS}%: train for longer")
    return temperature, *best[1:]


def shifted(logits, temperature, shift):
    """Logits with that of out-of-scope, the last, moved by `shift` after the temperature."""
    return torch.cat([logits[:, :-1], logits[:, -1:] + shift * temperature], 1)


def calibrated(work, name, data, write=False):
    """A run as it is shipped: (net with the shift in its last bias, temperature, threshold)."""
    net = load_student(work, name)
    kept_out, out = dev_logits(net, data), len(data.intents) - 1
    temperature, shift, threshold = calibrate(*kept_out, out)
    net.intent.bias.data[out] += shift * temperature
    if write:
        moved = shifted(kept_out[0], temperature, shift) / temperature
        bare = kept_out[0] / temperature
        rows = {"as chosen": trade_off(moved, *kept_out[1:], out, threshold)}
        rows |= {f"threshold {t} alone": trade_off(bare, *kept_out[1:], out, t) for t in (0.0, 0.3, 0.5, 0.6, 0.7, 0.8, 0.9)}
        made = {"temperature": temperature, "shift": shift, "threshold": threshold, "kept_out": rows}
        (work / f"calibration-{name}.json").write_text(json.dumps(made, indent=1))
        print(f"temperature {temperature} shift {shift} threshold {threshold}")
        for label, row in rows.items():
            print(f"kept out, {label}:", " ".join(f"{n} {v:.2f}" for n, v in row.items()))
    return net, temperature, threshold


def trade_off(logits, intents, groups, corpus, out, threshold):
    """At a threshold, on the sentences kept out: right answers by group, false accepts by corpus, in percent."""
    confidence, best = torch.softmax(logits, -1).max(-1)
    answer = torch.where(confidence >= threshold, best, out)
    right = (answer == intents).float()
    row = {name: 100 * right[torch.from_numpy(groups == g)].mean().item() for g, name in enumerate(("templates", "home"))}
    for name in ("hwu", "clinc"):
        row[name] = 100 * (answer != out)[torch.from_numpy((groups == 2) & (corpus == name))].float().mean().item()
    return row


def golden(run, temperature, threshold, intents):
    """golden.json: what the daemon must answer."""
    found = []
    for text in GOLDEN:
        ids = prepare.FEATURES.ids(text)
        intent, confidence, logits, tags, k = shipped.answer(run, ids, 1.0, temperature, threshold, intents)
        found.append({"text": text, "ids": ids, "budget": 1.0, "intent": intent, "tags": [settings.TAGS[t] for t in tags],
                      "confidence": round(confidence, 4), "intent_logits": [round(float(x), 4) for x in logits], "k": k})  # fmt: skip
    return found


def manifest(folder, language, net, intents, temperature, threshold):
    """manifest.toml."""
    files = [p for p in sorted(folder.iterdir()) if p.name != "manifest.toml"]
    size = sum(p.stat().st_size for p in files if p.suffix in (".onnx", ".bin"))
    features = prepare.FEATURES
    lines = [
        "format = 1", 'name = "intent"', f'version = "{VERSION}"', 'task = "intent"', 'model = "model.onnx"',
        'licence = "Apache-2.0 OR MIT (weights; data: CC BY 4.0, CC BY 3.0, CC0; see MODEL_CARD.md)"',
        'provenance = "Trained by models/recipe on Home Assistant\'s sentence templates, HWU64, CLINC150, SNIPS and paraphrases of our own."',
        f'language = "{language}"', "", "[k]", "min = 1", f"max = {net.config.k_max}", f"default = {K_DEFAULT}", "",
        "[memory]", f"resident_bytes = {size}", "",
    ]  # fmt: skip
    for path in files:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        lines += ["[[files]]", f'name = "{path.name}"', f"bytes = {path.stat().st_size}", f'sha256 = "{digest}"', ""]
    lines += [
        "[intent]", f"words_max = {features.words_max}", f"ngram_min = {features.ngram_min}", f"ngram_max = {features.ngram_max}",
        f"ngrams_max = {features.ngrams_max}", f"buckets = {features.buckets}", f"intents = {json.dumps(intents)}",
        f"tags = {json.dumps(settings.TAGS)}", f"temperature = {temperature}", f"threshold = {threshold}",
    ]  # fmt: skip
    (folder / "manifest.toml").write_text("\n".join(lines) + "\n")


def main():
    parser = settings.parser(__doc__.splitlines()[0])
    parser.add_argument("name")
    parser.add_argument("--out", type=pathlib.Path, default=settings.HERE.parent / "intent")
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    data = train.Data(args.work)
    intents = [str(name) for name in data.intents]
    net, temperature, threshold = calibrated(args.work, args.name, data, write=True)
    graph.save(*graph.build(net, prepare.FEATURES.ngrams_max), args.out)
    answers = golden(shipped.session(args.out), temperature, threshold, intents)
    (args.out / "golden.json").write_text("[\n" + ",\n".join(json.dumps(a) for a in answers) + "\n]\n")
    (args.out / "MODEL_CARD.md").touch()
    manifest(args.out, args.language, net, intents, temperature, threshold)
    for a in answers:
        print(f"{a['confidence']:.2f} {a['intent']:28s} {a['text']} {[t for t in a['tags']]}")


if __name__ == "__main__":
    main()
