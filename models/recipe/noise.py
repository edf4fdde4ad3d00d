"""Noise on words with tags: typing errors, and what speech recognisers make of speech.

A sentence is a list of [word, tag]; the tags stay with their words.
"""

from __future__ import annotations

import pathlib

import numerals

KEYS = ["qwertyuiop", "asdfghjkl", "zxcvbnm"]
NEIGHBOURS = {
    key: [other for r, line in enumerate(KEYS) for c, other in enumerate(line) if other != key and abs(r - row) <= 1 and abs(c - column) <= 1]
    for row, keys in enumerate(KEYS)
    for column, key in enumerate(keys)
}  # fmt: skip
# Sounds that recognisers write in another way.
RESPELL = [
    ("ck", "k"), ("ph", "f"), ("ee", "ea"), ("ea", "ee"), ("oo", "u"), ("ou", "ow"), ("ow", "ou"), ("ai", "ay"), ("igh", "ite"),
    ("c", "k"), ("k", "c"), ("s", "z"), ("z", "s"), ("v", "f"), ("f", "v"), ("t", "d"), ("d", "t"), ("b", "p"), ("p", "b"),
    ("th", "t"), ("wh", "w"), ("er", "or"), ("ir", "er"), ("y", "ie"), ("tion", "shun"), ("gh", ""), ("mm", "m"), ("tt", "t"),
    ("ll", "l"), ("m", "n"), ("n", "m"), ("g", "j"), ("j", "g"), ("a", "e"), ("e", "i"), ("i", "e"), ("o", "a"), ("u", "o"),
]  # fmt: skip
# Words that recognisers (and people in a hurry) leave out.
SMALL = {"the", "a", "an", "my", "our", "to", "in", "of", "is", "are", "at", "for", "please", "and", "me", "by", "it", "this", "that", "some", "i"}


class Noise:
    """Makes noise; one seed, one sequence of errors."""

    def __init__(self, language_folder: pathlib.Path, rng, fillers=()):
        self.rng = rng
        self.fillers = list(fillers)
        self.sounds: dict[str, list[str]] = {}
        for line in (language_folder / "homophones.txt").read_text().splitlines():
            members = [] if line.startswith("#") else line.split()
            for word in members:
                self.sounds.setdefault(word, []).extend(m for m in members if m != word)

    def typed(self, words, rate=0.3):
        """Each word of at least three letters gets one edit with probability `rate`."""
        return [[self.edit(w) if len(w) >= 3 and w.isalpha() and self.rng.random() < rate else w, t] for w, t in words]

    def edit(self, word):
        """One deletion, swap, doubling, insertion or replacement."""
        kind, at = self.rng.randrange(5), self.rng.randrange(len(word))
        near = self.rng.choice(NEIGHBOURS.get(word[at], ["e"]))
        if kind == 0:
            return word[:at] + word[at + 1 :]
        if kind == 1:
            at = min(at, len(word) - 2)
            return word[:at] + word[at + 1] + word[at] + word[at + 2 :]
        if kind == 2:
            return word[:at] + word[at] + word[at:]
        return word[:at] + near + word[at + (kind == 4) :]

    def heard(self, words, rate=0.2):
        """Homophones, other spellings of sounds, lost and split words, numbers in words."""
        found = []
        for word, tag in words:
            roll = self.rng.random()
            if word.isdigit() and len(word) < 6 and self.rng.random() < 0.5:
                found += [[part, tag if i == 0 else inside(tag)] for i, part in enumerate(numerals.spell(int(word)).split())]
            elif word in SMALL and tag == "O" and roll < rate and len(words) > 2:
                continue
            elif word in self.sounds and roll < rate:
                found.append([self.rng.choice(self.sounds[word]), tag])
            elif len(word) >= 4 and word.isalpha() and roll < 0.75 * rate:
                found.append([self.respell(word), tag])
            elif len(word) >= 7 and word.isalpha() and roll < rate:
                at = self.rng.randrange(3, len(word) - 2)
                found += [[word[:at], tag], [word[at:], inside(tag)]]
            else:
                found.append([word, tag])
        if self.fillers and self.rng.random() < rate / 2:
            at = self.rng.randrange(len(found) + 1)
            continues = at < len(found) and (found[at][1] or "").startswith("I-")
            if not continues:
                found.insert(at, [self.rng.choice(self.fillers), "O"])
        return found or words

    def respell(self, word):
        """The word with one sound written otherwise."""
        options = [(a, b) for a, b in RESPELL if a in word]
        if not options:
            return self.edit(word)
        a, b = self.rng.choice(options)
        return word.replace(a, b, 1) or word

    def any(self, words):
        """A mixture for training: more or less of either kind, or both."""
        kind = self.rng.random()
        rate = self.rng.choice([0.1, 0.2, 0.3, 0.4])
        if kind < 0.45:
            return self.typed(words, rate)
        if kind < 0.9:
            return self.heard(words, rate)
        return self.typed(self.heard(words, rate / 2), rate / 2)


def inside(tag):
    """The tag of a further word of the same slot."""
    return tag if tag in (None, "O") else "I-" + tag[2:]
