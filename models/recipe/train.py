#!/usr/bin/env python3
"""Trains one encoder: the student, its control, a dense baseline.

    train.py NAME [--steps N] [--teacher teacher.npz]

NAME is one of RUNS. Writes WORK/NAME.pt, which is also where an interrupted run goes on, and
WORK/NAME.log. Each step draws its batch from a seed made of its number, so that a run that was
interrupted ends where it would have ended.
"""

from __future__ import annotations

import dataclasses
import sys
import time

import numpy as np
import torch
from torch.nn import functional as F
from tqdm import tqdm

import model
import settings

BATCH = 192
SHARES = [0.5, 0.22, 0.28]  # of a batch: templates, home commands, everything else
RATE, WARM, DECAY = 2e-3, 100, 0.01
AGAIN = 1_000_000  # a run that goes on from another draws other batches
LABEL_WEIGHT, TEACHER_WEIGHT, TEACHER_TEMPERATURE = 0.3, 1.0, 2.0
BALANCE_EVERY, BALANCE_SPEED, BALANCE_UNTIL = 4, 0.01, 0.9
# The active size of the student at its default k: shared + 2 experts; its total: shared + 16.
RUNS = {
    "plain": {},  # what student and control begin with; trained like the dense baselines
    "student": {},
    "control": {},
    "per_word": {"route": "word"},
    "dense_active": {"experts": 0, "hidden": 384},
    "dense_total": {"experts": 0, "hidden": 2176},
}


class Data:
    """data.npz, and batches from it."""

    def __init__(self, work):
        arrays = dict(np.load(work / "data.npz"))
        self.intents, self.labels = list(arrays["intents"]), list(arrays["labels"])
        self.words = torch.from_numpy(arrays["words"].astype(np.int32))
        self.arrays = {n: arrays[n] for n in ("text", "tags", "intent", "label", "base", "group", "dev", "noisy")}
        dev = self.arrays["dev"]
        self.groups = [np.flatnonzero((self.arrays["group"] == g) & ~dev) for g in range(3)]

    def config(self, run):
        """The sizes of a run's model."""
        return model.Config(len(self.intents), len(settings.TAGS), len(self.labels), words=settings.WORDS, **RUNS[run])

    def draw(self, rng, size):
        """Row numbers of a batch: the shares of SHARES."""
        counts = [round(size * share) for share in SHARES]
        return np.concatenate([rng.choice(rows, n) for rows, n in zip(self.groups, counts)])

    def batch(self, rows):
        """Grams [T, ngrams], mask [B, L] and the columns of the rows."""
        part = {n: torch.from_numpy(a[rows].astype(np.int64) if a.dtype != bool else a[rows]) for n, a in self.arrays.items()}
        mask = part["text"] >= 0
        mask = mask[:, : int(mask.sum(1).max())]
        grams = self.words[part["text"][:, : mask.shape[1]][mask]].long()
        part["tags"] = part["tags"][:, : mask.shape[1]][mask]
        return grams, mask, part


class Teacher:
    """Logits of the teacher for the clean sentences: intent [M, intents], label [M, labels], their rows."""

    def __init__(self, path, bases):
        arrays = np.load(path)
        self.row = np.full(bases, -1, np.int64)
        self.row[arrays["base"]] = np.arange(len(arrays["base"]))
        self.intent = torch.from_numpy(arrays["intent"].astype(np.float32))
        self.label = torch.from_numpy(arrays["label"].astype(np.float32))

    def loss(self, base, intent, label):
        """KL between the softened distributions, for the sentences that the teacher has seen."""
        row = torch.from_numpy(self.row[base.numpy()])
        known = row >= 0
        if not known.any():
            return intent.sum() * 0
        row = row[known]
        total = 0
        for mine, theirs in ((intent[known], self.intent[row]), (label[known], self.label[row])):
            t = TEACHER_TEMPERATURE
            kl = F.kl_div(F.log_softmax(mine / t, -1), F.log_softmax(theirs / t, -1), log_target=True, reduction="batchmean")
            total = total + kl * t * t
        return total * known.float().mean()


def loss_of(net, data, rows, teacher, rng):
    """The loss of a batch; k is drawn for each sentence, so that any k works afterwards."""
    grams, mask, part = data.batch(rows)
    k = torch.from_numpy(rng.integers(1, net.config.k_max + 1, len(rows)))
    intent, tags, label, _ = net(grams, mask, k)
    loss = F.cross_entropy(intent, part["intent"], ignore_index=-1) + F.cross_entropy(tags, part["tags"], ignore_index=-1)
    loss = loss + LABEL_WEIGHT * F.cross_entropy(label, part["label"])
    if teacher:
        loss = loss + TEACHER_WEIGHT * teacher.loss(part["base"], intent, label)
    return loss


def rate(step, steps):
    """Warm up, then fall linearly to 0."""
    return min(1, (step + 1) / WARM) * (1 - step / steps)


@torch.no_grad()
def dev_scores(net, data, k):
    """Accuracy on the sentences kept out: {group: intent}, tags."""
    net.eval()
    scores, right, known = {}, 0, 0
    for group in range(3):
        rows = np.flatnonzero(data.arrays["dev"] & (data.arrays["group"] == group) & (data.arrays["intent"] >= 0))[:3000]
        hits = 0
        for part in np.array_split(rows, max(1, len(rows) // 256)):
            grams, mask, columns = data.batch(part)
            intent, tags, _, _ = net(grams, mask, torch.full((len(part),), k))
            hits += int((intent.argmax(-1) == columns["intent"]).sum())
            right += int((tags.argmax(-1) == columns["tags"])[columns["tags"] >= 0].sum())
            known += int((columns["tags"] >= 0).sum())
        scores[("templates", "home", "other")[group]] = round(100 * hits / len(rows), 2)
    net.train()
    return scores | {"tags": round(100 * right / known, 2)}


def main():
    parser = settings.parser(__doc__.splitlines()[0])
    parser.add_argument("name", choices=RUNS)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--teacher", help="file in WORK")
    parser.add_argument("--save-as", help="the name of the result, if not NAME")
    parser.add_argument("--from", dest="origin", help="a finished run whose weights to begin with; at half the rate")
    args = parser.parse_args()
    torch.set_num_threads(settings.THREADS)
    torch.manual_seed(settings.SEED)
    name = args.save_as or args.name
    data = Data(args.work)
    net = model.Encoder(data.config(args.name))
    optimizer = torch.optim.AdamW(net.parameters(), RATE, weight_decay=DECAY, betas=(0.9, 0.98), fused=True)
    teacher = Teacher(args.work / args.teacher, int(data.arrays["base"].max()) + 1) if args.teacher else None
    file, log = args.work / f"{name}.pt", (args.work / f"{name}.log").open("a")
    start, spent, top = 0, 0.0, RATE
    if args.origin:
        top = RATE / 2
        net.load_state_dict(torch.load(args.work / f"{args.origin}.pt", weights_only=False)["net"])
    if file.exists():
        saved = torch.load(file, weights_only=False)
        net.load_state_dict(saved["net"])
        optimizer.load_state_dict(saved["optimizer"])
        start, spent = saved["step"], saved["seconds"]
    clock, mean = time.process_time(), 0.0
    for step in tqdm(range(start, args.steps), initial=start, total=args.steps, desc=name, mininterval=10, file=sys.stderr):
        rng = np.random.default_rng((settings.SEED, step + (AGAIN if args.origin else 0)))
        torch.manual_seed(step)
        for group in optimizer.param_groups:
            group["lr"] = top * rate(step, args.steps)
        loss = loss_of(net, data, data.draw(rng, BATCH), teacher, rng)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        mean += (loss.item() - mean) / min(step - start + 1, 100)
        if step % BALANCE_EVERY == 0 and step < BALANCE_UNTIL * args.steps:
            for block in net.blocks:
                if isinstance(block.ffn, model.Mixture):
                    block.ffn.balance(BALANCE_SPEED)
        if (step + 1) % 100 == 0 or step + 1 == args.steps:
            print(f"{step + 1} loss {mean:.3f} cpu {spent + time.process_time() - clock:.0f} s", file=log, flush=True)
        if (step + 1) % 250 == 0 or step + 1 == args.steps:
            torch.save({"net": net.state_dict(), "optimizer": optimizer.state_dict(), "step": step + 1,
                        "seconds": spent + time.process_time() - clock, "config": dataclasses.asdict(net.config)}, file)  # fmt: skip
            print(dev_scores(net, data, min(2, net.config.k_max)), file=log, flush=True)


if __name__ == "__main__":
    main()
