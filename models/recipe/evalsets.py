"""The evaluation sets: never trained on. `texts` lists them so that training can leave them out."""

from __future__ import annotations

import dataclasses
import json
import pathlib

import yaml

import corpora
import features


@dataclasses.dataclass
class Case:
    """A sentence, the intents that are right for it, and what else is known."""

    text: str
    intents: set[str]
    slots: dict | None = None  # Home Assistant's slots and values
    home: dict | None = None  # {"areas": [...], "floors": [...], "entities": [...]}
    expect: dict | None = None  # assist-mini: expected state changes


# The home of sentences that come without one, for those who need its names.
USUAL = {
    "floors": [{"name": name} for name in ("Upstairs", "Downstairs", "First Floor")],
    "areas": [{"name": name} for name in ("Kitchen", "Living Room", "Bedroom", "Bathroom", "Dining Room", "Hallway", "Office", "Garage", "Garden", "House", "Room")],
    "entities": [
        {"name": name, "domain": domain, "area": area}
        for name, domain, area in (
            ("Light", "light", "Living Room"), ("Lamp", "light", "Bedroom"), ("Kitchen Light", "light", "Kitchen"), ("Plug", "switch", "Office"),
            ("Socket", "switch", "Kitchen"), ("Wemo", "switch", "Living Room"), ("Coffee Machine", "switch", "Kitchen"), ("Fan", "fan", "Bedroom"),
            ("Vacuum", "vacuum", "Living Room"), ("Vacuum Cleaner", "vacuum", "Hallway"), ("Roomba", "vacuum", "Living Room"),
            ("TV", "media_player", "Living Room"), ("Speaker", "media_player", "Living Room"), ("To Do", "todo", None), ("Shopping", "todo", None),
            ("Home", "weather", None), ("Thermostat", "climate", "Living Room"),
        )
    ],
}  # fmt: skip


def plain(text: str) -> str:
    """The words of a text, for comparisons."""
    return " ".join(w for w, _, _ in features.words(text))


def ha_tests(data: pathlib.Path, language: str) -> list[Case]:
    """Home Assistant's own test sentences, each file with the home that it names."""
    folder = data / "intent/ha_intents/tests" / language
    fixtures = yaml.safe_load((folder / "_fixtures.yaml").read_text())
    found = []
    for path in sorted(folder.glob("*/*.yaml")):
        content = yaml.safe_load(path.read_text())
        keys = ("areas", "floors", "entities")
        own = {key: content.get(key) for key in keys}
        home = {key: own[key] or [] for key in keys} if any(own.values()) else {key: fixtures.get(key) or [] for key in keys}
        for test in content["tests"]:
            for text in test["sentences"]:
                found.append(Case(text, {path.parent.name}, test.get("slots") or {}, home))
    return found


def hwu_valid(data: pathlib.Path, by_label=False) -> tuple[list[Case], list[Case]]:
    """HWU64 valid: (home commands, everything else)."""
    return split(corpora.read_pairs(data / "intent/hwu64/valid"), by_label)


def split(pairs, by_label=False) -> tuple[list[Case], list[Case]]:
    """(home commands, out of scope) of sentences with HWU64's labels.

    The intent is what corpora.hwu_intent makes of label and words, as in training; with `by_label`
    what the label alone says. Home commands are the 15 of the 64 labels that name one. Questions for the time, and coffee,
    are partly commands too: what training takes as neither counts for neither.
    """
    home, out = [], []
    for text, label in pairs:
        if label in corpora.HWU:
            intent = corpora.HWU[label] if by_label else corpora.hwu_intent(label, text)
            home.append(Case(text, corpora.alike(intent), home=USUAL))
        elif corpora.hwu_intent(label, text) == corpora.OUT:
            out.append(Case(text, {corpora.OUT}, home=USUAL))
    return home, out


def slurp_devel(data: pathlib.Path) -> tuple[list[Case], list[Case]]:
    """SLURP devel, without what also stands in HWU64 (same origin): (home commands, the rest)."""
    known = set()
    for part in ("train", "valid"):
        known |= {plain(text) for text, _ in corpora.read_pairs(data / "intent/hwu64" / part)}
    known |= set(corpora.hwu_spans(data))
    pairs = []
    for line in (data / "intent/slurp/devel.jsonl").read_text().splitlines():
        row = json.loads(line)
        if plain(row["sentence"]) not in known:
            known.add(plain(row["sentence"]))
            pairs.append((row["sentence"], f"{row['scenario']}_{row['action']}"))
    return split(pairs)


def clinc_out(data: pathlib.Path) -> list[Case]:
    """CLINC150's out-of-scope test sentences."""
    parts = json.loads((data / "intent/clinc150/data_oos_plus.json").read_text())
    return [Case(text, {corpora.OUT}, home=USUAL) for text, _ in parts["oos_test"]]


def assist_mini(data: pathlib.Path) -> list[Case]:
    """assist-mini: homes, sentences and expected state changes."""
    found = []
    for path in sorted((data / "intent/assist-mini").glob("*/*.yaml")):
        if path.name.startswith("_"):
            continue
        home = yaml.safe_load((path.parent / "_fixtures.yaml").read_text())
        for test in yaml.safe_load(path.read_text())["tests"]:
            for text in test["sentences"]:
                found.append(Case(text, set(), home=home, expect=test["expect_changes"]))
    return found


def texts(data: pathlib.Path, language: str) -> set[str]:
    """The words of every evaluation sentence."""
    cases = ha_tests(data, language)
    if language == "en":
        cases += sum(hwu_valid(data), []) + sum(slurp_devel(data), []) + clinc_out(data) + assist_mini(data)
    return {plain(case.text) for case in cases}
