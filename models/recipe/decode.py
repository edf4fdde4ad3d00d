"""From tags to slots with Home Assistant's values, against a home's names.

The daemon does this in Rust (src/pipeline); this is the small reference that the evaluation uses
where it judges the model alone. Spans of a name, an area and a kind of device are read together:
the names of the home decide where one ends and the next begins.
"""

from __future__ import annotations

import difflib
import re

import features
import numerals

NUMBER_WORDS = {word: i for i, word in enumerate(numerals.UNITS)} | {w: 10 * i for i, w in enumerate(numerals.TENS) if i > 1}
DOMAINS = {
    "light": "light", "lights": "light", "lighting": "light", "lamp": "light", "lamps": "light", "bulb": "light", "bulbs": "light",
    "fan": "fan", "fans": "fan", "ventilation": "fan", "switch": "switch", "switches": "switch", "lock": "lock", "locks": "lock",
    "door": "lock", "doors": "lock", "window": "lock", "windows": "lock", "anyone": "person", "everyone": "person", "who": "person",
}  # fmt: skip
CLASSES = {
    "awning": "awning", "blind": "blind", "curtain": "curtain", "door": "door", "garage door": "garage", "gate": "gate",
    "shade": "shade", "shutter": "shutter", "window": "window",
}  # fmt: skip
STATES = {
    "on": "on", "off": "off", "open": "open", "opened": "open", "closed": "closed", "shut": "closed", "opening": "opening",
    "closing": "closing", "shutting": "closing", "locked": "locked", "securely locked": "locked", "unlocked": "unlocked",
    "occupied": "on", "detected": "on", "triggered": "on", "empty": "off", "clear": "off", "unoccupied": "off",
}  # fmt: skip
LEVELS = {"max": 100, "maximum": 100, "highest": 100, "min": 1, "minimum": 1, "lowest": 1, "half": 50}
KELVIN = {"candle light": 1900, "warm white": 2700, "cold white": 4000, "cool white": 4000, "daylight": 6500, "day light": 6500}
MEDIA = {"artist": "artist", "album": "album", "track": "track", "song": "track", "playlist": "playlist", "podcast": "podcast",
         "movie": "movie", "show": "tv_show", "tv show": "tv_show"}  # fmt: skip
COLORS = "white black red orange yellow green blue purple brown pink turquoise".split()
UP, DOWN = {"up", "increase", "raise", "louder", "higher"}, {"down", "decrease", "lower", "reduce", "quieter", "softer"}
NUMBERS = {"temperature", "percentage", "position", "brightness", "volume_level", "volume_step", "hours", "minutes", "seconds",
           "start_hours", "start_minutes", "start_seconds"}  # fmt: skip
ALL = {"all", "every", "each", "any", "some", "which", "many"}
NAMED, UNNAMED = 0.7, 0.95  # similarity that a run needs, with and without a tag for a name
PLACES = ("name", "area", "floor", "domain", "device_class")


def spans(tags):
    """[(slot, first word, past the last word)] of BIO tags; a stray I- begins a span."""
    found = []
    for i, tag in enumerate(tags):
        if tag == "O":
            continue
        slot = tag[2:]
        if tag[0] == "I" and found and found[-1][0] == slot and found[-1][2] == i:
            found[-1] = (slot, found[-1][1], i + 1)
        else:
            found.append((slot, i, i + 1))
    return found


def number(text: str):
    """A number in digits or words, or None."""
    text = text.replace("-", " ").strip()
    if re.fullmatch(r"\d+([.,]\d+)?", text):
        value = float(text.replace(",", "."))
        return int(value) if value == int(value) else value
    total = part = 0
    tens = False
    known = False
    words = text.split()
    for i, word in enumerate(words):
        if word == "point" and known and i + 1 < len(words):
            rest = number(words[i + 1])
            return total + part + (rest or 0) / 10
        if word in ("a", "an"):
            part, known = part + 1, True
        elif word == "hundred" and known:
            part *= 100
        elif word == "thousand" and known:
            total, part = total + part * 1000, 0
        elif word.isdigit():
            part, known = part + int(word), True
        else:
            close = difflib.get_close_matches(word, NUMBER_WORDS, 1, 0.75)
            if close:
                part, known = part + NUMBER_WORDS[close[0]], True
    return total + part if known else None


def nearest(text: str, table, cutoff=0.6):
    """The value of the key nearest to a text, or None."""
    for form in (text, text.rstrip("s")):
        if form in table:
            return table[form]
    close = difflib.get_close_matches(text, table, 1, cutoff)
    return table[close[0]] if close else None


def similar(a: str, b: str) -> float:
    """0..1."""
    return difflib.SequenceMatcher(None, a, b, autojunk=False).ratio()


def best_name(text, names):
    """(similarity, name) of the name of the home nearest to a text. `names`: {spelling: name}."""
    text = re.sub(r"^(the|my|our) ", "", text)
    return max(((similar(text, spelling), name) for spelling, name in names.items()), default=(0, None))


def spellings(things):
    """{words of a name or alias: name}."""
    found = {}
    for thing in things or []:
        listed = thing["name"]
        main = listed.get("in", listed) if isinstance(listed, dict) else listed
        for spelling in [main, *thing.get("aliases", [])]:
            found[" ".join(w for w, _, _ in features.words(str(spelling)))] = str(main)
    return found


def slots(text: str, intent: str, tags: list[str], home: dict) -> dict:
    """{slot: value} of a sentence, given its intent and tags."""
    words = [w for w, _, _ in features.words(text)]
    names, areas, floors = (spellings(home.get(k)) for k in ("entities", "areas", "floors"))
    found, places, taken = {}, [], set()
    timer = intent in TIMERS
    if timer or intent.startswith("HassShoppingList"):
        names = {}
    for slot, start, end in spans(tags):
        part = " ".join(words[start:end])
        if slot in ("item", "message", "search_query", "conversation_command"):
            taken |= set(range(start, end))
        if slot in PLACES:
            places.append((slot, start, end, part))
        elif slot == "state":
            found.setdefault("state", nearest(part, STATES) or part)
        elif slot == "color":
            found["color"] = nearest(part, {c: c for c in COLORS}) or part
        elif slot == "media_class":
            found["media_class"] = nearest(part, MEDIA) or part
        elif slot in NUMBERS and timer:
            add_duration(found, slot, part, words, start, end, intent)
        elif slot in NUMBERS:
            add_number(found, slot, part, words, intent)
        elif slot in found:
            found[slot] += " " + part
        else:
            found[slot] = part
    if intent == "HassSetVolumeRelative" and "volume_step" not in found:
        found["volume_step"] = "down" if falls(words) else "up"
    if found.get("state") not in ("locked", "unlocked"):
        places = [("device_class" if slot == "domain" and part in CLOSABLE else slot, a, b, part) for slot, a, b, part in places]
    resolve(found, places, names, areas, floors, words, timer, taken)
    if intent in ("HassTurnOn", "HassTurnOff") and not {"name", "domain"} & set(found):
        found["domain"] = "light"  # `illuminate the kitchen`
    if intent == "HassGetState" and "name" in found:
        is_sensor = any(str(e.get("name")) == found["name"] and "binary_sensor" in (e.get("domain"), str(e.get("id")).split(".")[0])
                        for e in home.get("entities") or [])  # fmt: skip
        if is_sensor:
            found["state"] = {"open": "on", "closed": "off"}.get(found.get("state"), found.get("state"))
    return {k: v for k, v in found.items() if v is not None}


def adapted(intent: str, name, home: dict) -> str:
    """The intent for the kind of device that was named: mowers and vacuums are told alike."""
    domains = {e.get("domain") or str(e.get("id")).split(".")[0] for e in home.get("entities") or [] if str(e["name"]) == name}
    return ADAPTED.get((intent, next(iter(domains))), intent) if len(domains) == 1 else intent


STARTS, RETURNS = ("HassVacuumStart", "HassLawnMowerStartMowing", "HassTurnOn"), ("HassVacuumReturnToBase", "HassLawnMowerDock", "HassTurnOff")
ADAPTED = {(i, d): to for group, kinds in ((STARTS, {"vacuum": "HassVacuumStart", "lawn_mower": "HassLawnMowerStartMowing"}),
                                           (RETURNS, {"vacuum": "HassVacuumReturnToBase", "lawn_mower": "HassLawnMowerDock"}))
           for i in group for d, to in kinds.items()}  # fmt: skip
TIMERS = {f"Hass{verb}Timer" for verb in ("Start", "Cancel", "Increase", "Decrease", "Pause", "Unpause")} | {"HassTimerStatus"}


def add_duration(found, slot, part, words, start, end, intent):
    """Hours, minutes and seconds of the change, or (start_) of the timer; the next words say the unit."""
    rest = words[end:]
    change = intent in ("HassIncreaseTimer", "HassDecreaseTimer")
    named = change and ("timer" in rest[1:2] or words[max(0, start - 2) : start] == ["timer", "for"])
    prefix = "start_" if slot.startswith("start_") or named or not (change or intent == "HassStartTimer") else ""
    units = {"hour": "hours", "hours": "hours", "minute": "minutes", "minutes": "minutes", "min": "minutes", "second": "seconds", "seconds": "seconds", "sec": "seconds"}
    unit = next((u for w in rest[:4] if (u := nearest(w, units, 0.7))), slot.removeprefix("start_"))
    if part.startswith("half") or (part in ("1 2", "2") and prefix + unit in found):
        smaller = {"hours": "minutes", "minutes": "seconds"}
        found[prefix + smaller.get(unit, unit)] = 30
        return
    if (many := number(part)) is not None:
        found.setdefault(prefix + unit, many)


def add_number(found, slot, part, words, intent):
    """A number; the intent says what of, whatever its tag."""
    slot = NUMBER_OF.get(intent, slot)
    many = None if intent == "HassLightSet" and nearest(part, KELVIN, 0.8) else number(part)
    if slot == "brightness" and many is not None and many >= 1000:
        slot = "temperature"  # kelvin
    if many is None and intent == "HassLightSet":
        level, kelvin = nearest(part, LEVELS), nearest(part, KELVIN)
        slot, many = ("temperature", kelvin) if kelvin else ("brightness", level)
    elif many is None and slot == "volume_step":
        many = "down" if falls(words) else "up"
    elif slot == "volume_step" and falls(words):
        many = -many
    if many is not None and not (slot in found and isinstance(many, str)):
        found[slot] = many


def falls(words) -> bool:
    """Whether a sentence about volume asks for less."""
    quieter = DOWN | {"loud", "noisy"} - {"louder"}
    return any(w in quieter or (len(w) > 3 and difflib.get_close_matches(w, DOWN, 1, 0.8)) for w in words)


CLOSABLE = {"window", "windows", "door", "doors", "gate", "gates", "shutter", "shutters"}
NUMBER_OF = {
    "HassLightSet": "brightness", "HassSetPosition": "position", "HassSetVolume": "volume_level",
    "HassSetVolumeRelative": "volume_step", "HassClimateSetTemperature": "temperature", "HassFanSetSpeed": "percentage",
}  # fmt: skip


def candidates(places, names, words):
    """[(similarity, first, past the last, name)]: runs of neighbouring spans and what they may name."""
    found = []
    plural = bool(ALL & set(words))
    for first in range(len(places)):
        for last in range(first, len(places)):
            run = places[first : last + 1]
            if any(a[2] < b[1] - 1 for a, b in zip(run, run[1:])):
                break
            kinds = {slot for slot, *_ in run}
            if "name" not in kinds and (kinds <= {"area", "floor"} or len(run) == 1 or plural):
                continue
            whole = " ".join(words[run[0][1] : run[-1][2]])
            score, name = best_name(whole, names)
            if score >= (NAMED if "name" in kinds else UNNAMED):
                found.append((score, first, last + 1, name))
    return sorted(found, key=lambda c: (-c[0], c[1] - c[2]))


def spoken(words, names, taken):
    """The longest name of the home that stands in the sentence, tagged or not: (name, first, past) or None.

    `taken`: words of free text, such as an item of a list."""
    best = None
    for spelling, name in names.items():
        size = len(spelling.split())
        for first in range(len(words) - size + 1):
            part = words[first : first + size]
            if taken & set(range(first, first + size)) or (size == 1 and part[0] in DOMAINS | CLASSES):
                continue
            if similar(" ".join(part), spelling) >= (0.9 if size > 1 else 1.0) and (best is None or size > best[2] - best[1]):
                best = (name, first, first + size)
    return best


def resolve(found, places, names, areas, floors, words, timer, taken):
    """Names, areas and floors among the home's own; neighbouring spans may be one name."""
    used: set[int] = set()
    for _, first, past, name in candidates(places, names, words):
        if not used & set(range(first, past)) and "name" not in found:
            found["name"] = name
            used |= set(range(first, past))
    if "name" not in found and not ALL & set(words) and (heard := spoken(words, names, taken)):
        found["name"] = heard[0]
        used |= {i for i, (_, a, b, _) in enumerate(places) if a < heard[2] and b > heard[1]}
    for i, (slot, _, _, part) in enumerate(places):
        if i in used:
            continue
        if slot == "domain":
            found["domain"] = nearest(part, DOMAINS)
        elif slot == "device_class":
            found["device_class"] = nearest(part, CLASSES)
            found.setdefault("domain", "cover")
        elif slot == "area" or (slot == "name" and timer):
            place(found, slot, part, areas, floors)
        elif slot == "floor":
            place(found, slot, part, floors, areas)
        elif "name" not in found:
            score, name = best_name(part, names)
            found["name"] = name if score >= 0.6 else part


def place(found, slot, part, mine, other):
    """An area, a floor or a timer's name: as the home calls it, if it does."""
    kinds = {"area": ("area", "floor"), "floor": ("floor", "area"), "name": ("area", "floor")}[slot]
    tries = [(*best_name(part, table), kind) for table, kind in zip((mine, other), kinds)]
    score, name, kind = max(tries, key=lambda t: t[0])
    if score >= (0.85 if slot == "name" else 0.6):
        found[kind] = name
    else:
        found[slot] = part
