#!/usr/bin/env python3
"""Trains the allocator: how many experts each message gets, given the budget.

    allocator.py NAME    NAME: a run of train.py; writes WORK/allocator-NAME.pt and allocator-NAME.json

GRPO (DeepSeekMath, arXiv 2402.03300; DeepSeek-R1): a reward's advantage is over the mean of a group
of answers to the same question. Here the group is every k from 1 to k_max, so that the expectation
over the policy is a sum and the gradient exact:

    R(k) = p(right answer | k experts) - lambda (k - 1) / (k_max - 1),   lambda = LAMBDA (1 - budget)^3
    A(k) = R(k) - mean R
    loss = - sum_k pi(k | message, budget) A(k) + BETA KL(pi || uniform)

p, not whether the answer is right, as an answer drawn by it would be right that often: nearly all
answers are right with any k. No division by the group's deviation: it would make the cost of the easy
sentences, where nothing else differs, count as much as the mistakes in the hard ones, and the
allocator answered 1 to everything. The student stays as it is, and the sentences are those kept out of its
training: on the others it is surer than it will be. Compared with a fixed k and with a top-p rule (the fewest experts whose
normalised affinities reach p) at equal average k, on the noisy evaluation sets.
"""

from __future__ import annotations

import json
import random

import numpy as np
import torch
from torch.nn import functional as F

import bundle
import evaluate
import noise
import prepare
import settings
import teacher
import train

EPOCHS, BATCH, RATE = 100, 512, 3e-3
LAMBDA, BETA = 0.08, 0.001
BUDGETS = [0.0, 0.2, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]


@torch.no_grad()
def outcomes(net, batches):
    """Over batches of (grams, mask, right answers [B, intents] as booleans): what the allocator
    sees [N, D], whether each k is right [N, k_max] and how likely it holds a right answer."""
    seen, right, likely = [], [], []
    for grams, mask, wanted in batches:
        hits, shares = [], []
        for k in range(1, net.config.k_max + 1):
            intent, _, _, pooled = net(grams, mask, torch.full((mask.shape[0],), k))
            hits.append(wanted.gather(1, intent.argmax(-1, keepdim=True))[:, 0])
            shares.append((torch.softmax(intent, -1) * wanted).sum(1))
        seen.append(pooled)
        right.append(torch.stack(hits, 1))
        likely.append(torch.stack(shares, 1))
    return torch.cat(seen), torch.cat(right).float(), torch.cat(likely)


def training_batches(data):
    """The sentences kept out of the student's training, those of like length together."""
    rows = np.flatnonzero((data.arrays["intent"] >= 0) & data.arrays["dev"])
    rows = rows[np.argsort((data.arrays["text"][rows] >= 0).sum(1), kind="stable")]
    for part in np.array_split(rows, max(1, len(rows) // 256)):
        grams, mask, columns = data.batch(part)
        yield grams, mask, F.one_hot(columns["intent"], len(data.intents)).bool()


def evaluation_batches(args, data):
    """The evaluation sentences of home commands and what must be refused, with both kinds of noise."""
    number = {str(name): i for i, name in enumerate(data.intents)}
    cases = [c for name, part in evaluate.sets(args.data, args.language).items() if name != "assist_mini" for c in part]
    for kind in ("typos", "speech"):
        makers = noise.Noise(settings.HERE / args.language, random.Random(f"{kind} 2"))
        made = [(prepare.FEATURES.ids(evaluate.disturbed(c.text, kind, makers)), c.intents) for c in cases]
        made = sorted((m for m in made if m[0]), key=lambda m: len(m[0]))
        for part in (made[i : i + 128] for i in range(0, len(made), 128)):
            mask = torch.zeros(len(part), max(len(ids) for ids, _ in part), dtype=torch.bool)
            wanted = torch.zeros(len(part), len(data.intents), dtype=torch.bool)
            for row, (ids, intents) in enumerate(part):
                mask[row, : len(ids)] = True
                wanted[row, [number[i] for i in intents if i in number]] = True
            yield torch.tensor([word for ids, _ in part for word in ids]), mask, wanted


def learn(net, seen, likely):
    """Trains net.allocator."""
    torch.manual_seed(settings.SEED)
    optimizer = torch.optim.Adam(net.allocator.parameters(), RATE)
    cost = torch.arange(net.config.k_max) / (net.config.k_max - 1)
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(seen)).split(BATCH):
            budget = torch.rand(len(rows))
            reward = likely[rows] - (LAMBDA * (1 - budget) ** 3)[:, None] * cost
            advantage = reward - reward.mean(1, keepdim=True)
            log_policy = F.log_softmax(net.allocator(seen[rows], budget), -1)
            policy = log_policy.exp()
            divergence = (policy * (log_policy + np.log(net.config.k_max))).sum(1)
            loss = (-(policy * advantage).sum(1) + BETA * divergence).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


@torch.no_grad()
def curves(net, seen, right):
    """{rule: [(setting, mean k, accuracy)]} on an outcome table."""
    def at(k):
        return float(k.float().mean()), float(100 * right.gather(1, k[:, None] - 1).mean())

    k_max = net.config.k_max
    found = {"fixed k": [(k, *at(torch.full((len(seen),), k))) for k in range(1, k_max + 1)]}
    found["allocator"] = [(b, *at(net.allocator(seen, torch.full((len(seen),), b)).argmax(-1) + 1)) for b in BUDGETS]
    router = net.blocks[0].ffn
    affinity = torch.sigmoid(router.router(seen))
    chosen = torch.topk(affinity + router.bias, k_max).indices
    share = affinity.gather(1, chosen)
    reached = (share / share.sum(1, keepdim=True)).cumsum(1)
    found["top-p"] = [(p, *at(1 + (reached[:, :-1] < p).sum(1))) for p in np.arange(0.2, 1.0, 0.05).round(2).tolist()]
    least = torch.where(right.any(1), right.argmax(1) + 1, 1)
    found["oracle"] = [("fewest that are right", *at(least))]
    return found


def main():
    parser = settings.parser(__doc__.splitlines()[0])
    parser.add_argument("name")
    args = parser.parse_args()
    torch.set_num_threads(1)
    data = train.Data(args.work)
    net = teacher.load_encoder(args.work, args.name)
    seen, right, likely = outcomes(net, training_batches(data))
    print("kept out, right answers with k = 1, 2, ...:", " ".join(f"{100 * v:.2f}" for v in right.mean(0).tolist()), "%")
    learn(net, seen, likely)
    torch.save(net.allocator.state_dict(), args.work / f"allocator-{args.name}.pt")
    found = curves(net, *outcomes(net, evaluation_batches(args, data))[:2])
    (args.work / f"allocator-{args.name}.json").write_text(json.dumps(found))
    for rule, points in found.items():
        for setting, k, accuracy in points:
            print(f"{rule:10s} {setting!s:22s} mean k {k:.2f} accuracy {accuracy:.2f} %")


if __name__ == "__main__":
    main()
