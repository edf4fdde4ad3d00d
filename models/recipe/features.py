"""Words and hashed character n-grams of a sentence.

src/pipeline/features.rs does the same in Rust; golden.json in the bundle proves
that both agree to the last id.

    words:  maximal runs of alphanumeric characters; an apostrophe may stand
            between two of them, and `.` or `,` between two ASCII digits.
            `%` and `°` are words of their own.
    grams:  of w = "<" + word + ">": w itself, then its n-grams for growing n.
    id:     1 + fnv1a32(utf-8) mod (buckets - 1); 0 is padding.
"""

from __future__ import annotations

import dataclasses

APOSTROPHES = "'\u2019"
DIGITS = "0123456789"


@dataclasses.dataclass(frozen=True)
class Features:
    """The numbers that the manifest gives: see manifest.toml, section [intent]."""

    words_max: int = 32
    ngram_min: int = 2
    ngram_max: int = 4
    ngrams_max: int = 24
    buckets: int = 32768

    def ids(self, text: str) -> list[list[int]]:
        """[words, ngrams_max], padded with 0."""
        return [self.word_ids(word) for word, _, _ in words(text)[: self.words_max]]

    def word_ids(self, word: str) -> list[int]:
        """[ngrams_max], padded with 0."""
        found = [self.bucket(gram) for gram in self.grams(word)]
        return found + [0] * (self.ngrams_max - len(found))

    def grams(self, word: str) -> list[str]:
        """The word and its n-grams, at most ngrams_max."""
        framed = f"<{word}>"
        found = [framed]
        for n in range(self.ngram_min, self.ngram_max + 1):
            found += [framed[i : i + n] for i in range(len(framed) - n + 1) if n < len(framed)]
        return found[: self.ngrams_max]

    def bucket(self, gram: str) -> int:
        """The id of a gram, 1 <= id < buckets."""
        return 1 + fnv1a32(gram.encode()) % (self.buckets - 1)


def fnv1a32(data: bytes) -> int:
    """FNV-1a, 32 bits (Fowler, Noll, Vo)."""
    value = 0x811C9DC5
    for byte in data:
        value = ((value ^ byte) * 0x01000193) & 0xFFFFFFFF
    return value


def words(text: str) -> list[tuple[str, int, int]]:
    """(word in lower case, start, end) for each word; the span is in `text`."""
    found = []
    at = 0
    while at < len(text):
        if text[at] in "%°":
            found.append((text[at], at, at + 1))
            at += 1
        elif text[at].isalnum():
            start = at
            at += 1
            while at < len(text) and (text[at].isalnum() or _joins(text, at)):
                at += 1
            word = text[start:at].replace("\u2019", "'").lower()
            found.append((word, start, at))
        else:
            at += 1
    return found


def _joins(text: str, at: int) -> bool:
    """Whether the character at `at` joins its neighbours into one word."""
    if at + 1 >= len(text):
        return False
    before, after = text[at - 1], text[at + 1]
    if text[at] in APOSTROPHES:
        return before.isalnum() and after.isalnum()
    return text[at] in ".," and before in DIGITS and after in DIGITS
