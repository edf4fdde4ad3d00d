#!/usr/bin/env python3
"""Makes the training arrays: sampled templates, public sentences, noise; WORK/data.npz and texts.json.

    words   uint16 [W, ngrams_max]  gram ids of each different word
    text    int32  [N, WORDS]       index into words, -1 past the end
    tags    int8   [N, WORDS]       index into TAGS, -1 unknown or past the end
    intent  int16  [N]              index into intents, -1 unknown
    label   int16  [N]              the label of the sentence's corpus, for the auxiliary loss
    base    int32  [N]              the clean sentence that it was made from (its row in texts.json)
    group   int8   [N]              0 templates, 1 home commands, 2 everything else
    dev     bool   [N]              kept out of training; calibrates and chooses
    noisy   bool   [N]
"""

from __future__ import annotations

import json
import random
import zlib

import numpy as np
from tqdm import tqdm

import corpora
import evalsets
import features
import noise
import sampler
import settings

SHRINK = 40 if settings.TINY else 1
TEMPLATES = 240_000 // SHRINK
FOREIGN = 24_000 // SHRINK  # sentences of foreign.yaml
SHARE_CLEAN = 0.4
COPIES = {1: 12, 2: 3}  # noisy copies of a public sentence, by group
FEATURES = features.Features(words_max=settings.WORDS)


class Arrays:
    """Collects examples."""

    def __init__(self, intents):
        self.words: dict[str, int] = {}
        self.grams: list[list[int]] = []
        self.labels = {f"ha:{name}": i for i, name in enumerate(intents)}
        self.intents = {name: i for i, name in enumerate(intents)}
        self.tags = {tag: i for i, tag in enumerate(settings.TAGS)}
        self.rows: list[tuple] = []
        self.texts: list[str] = []

    def base(self, text):
        """A new row of texts.json."""
        self.texts.append(text)
        return len(self.texts) - 1

    def add(self, words, intent, label, base, group, dev, noisy):
        """`words`: [[word, tag or None], ...]."""
        flat = [(part, tag if i == 0 else noise.inside(tag)) for word, tag in words
                for i, (part, _, _) in enumerate(features.words(word))]  # fmt: skip
        if not flat:
            return
        flat = flat[: settings.WORDS]
        ids = [self.word(word) for word, _ in flat]
        tags = [-1 if tag is None else self.tags[tag] for _, tag in flat]
        number = -1 if intent is None else self.intents[intent]
        self.rows.append((ids, tags, number, self.labels.setdefault(label, len(self.labels)), base, group, dev, noisy))

    def word(self, word):
        if word not in self.words:
            self.words[word] = len(self.grams)
            self.grams.append(FEATURES.word_ids(word))
        return self.words[word]

    def save(self, path, intents):
        """Writes data.npz."""
        text = np.full((len(self.rows), settings.WORDS), -1, np.int32)
        tags = np.full((len(self.rows), settings.WORDS), -1, np.int8)
        for row, (ids, tag, *_) in enumerate(self.rows):
            text[row, : len(ids)] = ids
            tags[row, : len(tag)] = tag
        rest = list(zip(*[row[2:] for row in self.rows]))
        kinds = [np.int16, np.int16, np.int32, np.int8, bool, bool]
        columns = {n: np.array(v, k) for n, v, k in zip(["intent", "label", "base", "group", "dev", "noisy"], rest, kinds)}
        np.savez(path, words=np.array(self.grams, np.uint16), text=text, tags=tags, intents=intents,
                 labels=list(self.labels), **columns)  # fmt: skip


def tagged_words(chunks):
    """[[word, tag]] of a sample of the sampler."""
    text, owner, number = "", [], 0
    for part, slot in chunks:
        number += 1
        owner += [(number, slot) if slot else None] * len(part)
        text += part
    found, last = [], None
    for word, start, _ in features.words(text):
        mine = owner[start]
        found.append([word, "O" if mine is None else ("I-" if mine == last else "B-") + mine[1]])
        last = mine
    return found


def polite(words, vocabulary, rng):
    """The sentence with what people say before and after a command."""
    if rng.random() < 0.3:
        words = [[w, "O"] for w in rng.choice(vocabulary["prefixes"]).split()] + words
    if rng.random() < 0.15:
        words = words + [[w, "O"] for w in rng.choice(vocabulary["suffixes"]).split()]
    return words


def swap(words, namer, vocabulary, rng):
    """A home command with other rooms, colours, lists and songs in its slots."""
    draw = {
        "area": namer.area, "color": lambda: rng.choice(vocabulary["values"]["colors"]),
        "search_query": lambda: rng.choice(vocabulary["queries"]),
    }  # fmt: skip
    found, at = [], 0
    while at < len(words):
        word, tag = words[at]
        slot = tag[2:] if tag else ""
        if not tag or not tag.startswith("B-") or slot not in draw or rng.random() < 0.3:
            found.append([word, tag])
            at += 1
            continue
        at += 1
        while at < len(words) and words[at][1] == f"I-{slot}":
            at += 1
        for i, (part, _, _) in enumerate(features.words(draw[slot]())):
            found.append([part, ("I-" if i else "B-") + slot])
    return found


def main():
    args = settings.parser(__doc__.splitlines()[0]).parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    rng = random.Random(settings.SEED)
    source = sampler.Sampler(args.language, rng)
    intents = source.intents + [settings.OUT]
    vocabulary = source.vocabulary
    noisy = noise.Noise(settings.HERE / args.language, rng, vocabulary["fillers"])
    arrays = Arrays(intents)
    banned = evalsets.texts(args.data, args.language)

    for i in tqdm(range(TEMPLATES), desc="templates", mininterval=5):
        intent, chunks, _ = source.sample()
        words = tagged_words(chunks)
        if " ".join(w for w, _ in words) in banned:
            continue
        words = polite(words, vocabulary, rng)
        text = " ".join(w for w, _ in words)
        clean = rng.random() < SHARE_CLEAN
        words = words if clean else noisy.any(words)
        arrays.add(words, intent, f"ha:{intent}", arrays.base(text), 0, i % 80 == 0, not clean)

    if args.language == "en":
        for sentence in tqdm(corpora.training(args.data)[::SHRINK], desc="corpora", mininterval=5):
            add_public(arrays, sentence, noisy, source, banned, rng)
    stranger = sampler.Foreign(args.language, rng)
    for i in range(FOREIGN):
        words = [[w, "O"] for w, _, _ in features.words(stranger.sample())]
        base = arrays.base(" ".join(w for w, _ in words))
        noise_too = rng.random() > SHARE_CLEAN
        if arrays.texts[base] not in banned:
            arrays.add(noisy.any(words) if noise_too else words, settings.OUT, f"ha:{settings.OUT}", base, 2, i % 80 == 0, noise_too)
    arrays.save(args.work / "data.npz", intents)
    (args.work / "texts.json").write_text(json.dumps(arrays.texts))
    print(f"{len(arrays.rows)} examples, {len(arrays.words)} words, {len(intents)} intents, {len(arrays.labels)} labels")


def add_public(arrays, sentence, noisy, source, banned, rng):
    """A sentence of a corpus: as it is, and copies with noise, words around it, other names in it."""
    plain = [w for w, _, _ in features.words(sentence.text)]
    if not plain or " ".join(plain) in banned:
        return
    group = 2 if sentence.intent == settings.OUT else 1
    dev = zlib.crc32(sentence.text.encode()) % 100 < 7
    tags = sentence.tags if sentence.tags and len(sentence.tags) == len(plain) else [None] * len(plain)
    words = [list(pair) for pair in zip(plain, tags)]
    base = arrays.base(sentence.text)
    rest = (sentence.intent, sentence.label, base, group, dev)
    arrays.add(words, *rest, False)
    for copy in range(COPIES[group]):
        changed = swap(words, source.namer, source.vocabulary, rng) if group == 1 and copy % 2 else words
        if sentence.tags and rng.random() < 0.3:
            changed = polite(changed, source.vocabulary, rng)
        arrays.add(noisy.any(changed) if copy % 4 != 3 else changed, *rest, True)


if __name__ == "__main__":
    main()
