"""Numbers as they stand in a sentence: digits or English words."""

from __future__ import annotations

UNITS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
    "sixteen seventeen eighteen nineteen"
).split()
TENS = "_ _ twenty thirty forty fifty sixty seventy eighty ninety".split()
SHARE_OF_WORDS = 0.35


def spell(number: int) -> str:
    """0 <= number < 100000 in words, hyphens left out."""
    if number < 20:
        return UNITS[number]
    if number < 100:
        return TENS[number // 10] + (f" {UNITS[number % 10]}" if number % 10 else "")
    if number < 1000:
        rest = number % 100
        return f"{UNITS[number // 100]} hundred" + (f" {spell(rest)}" if rest else "")
    rest = number % 1000
    return f"{spell(number // 1000)} thousand" + (f" {spell(rest)}" if rest else "")


def draw(spread: dict, rng) -> str:
    """A number of a hassil range {from, to, step, fractions}; round ones more often."""
    low, high = spread["from"], spread["to"]
    step = spread.get("step", 1)
    if spread.get("type") == "temperature" and rng.random() < 0.8:
        low, high = rng.choice([(15, 30), (55, 85)])
    elif high - low >= 50 and rng.random() < 0.6:
        step = max(step, 5)
    number = rng.randrange(-(-low // step) * step, high + 1, step)
    if spread.get("fractions") and rng.random() < 0.12:
        half = ".5" if rng.random() < 0.5 else " point five"
        return (spell(number) if half[0] == " " else str(number)) + half
    return spell(number) if rng.random() < SHARE_OF_WORDS else str(number)
