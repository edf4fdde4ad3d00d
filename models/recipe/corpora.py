"""Public sentences for training: HWU64, its spans, CLINC150 and SNIPS (see MODEL_CARD.md).

Only the training parts are read here. Each sentence gets the Home Assistant intent that would
carry it out, `out_of_scope` if there is none, or None where the corpus' own label does not say
(those sentences serve distillation only).
"""

from __future__ import annotations

import collections
import csv
import dataclasses
import json
import pathlib
import re

import features

OUT = "out_of_scope"


@dataclasses.dataclass
class Sentence:
    """A text, its tag for each word (None: unknown), its intent and its corpus' label."""

    text: str
    intent: str | None
    label: str
    tags: list[str] | None = None


HWU = {
    "audio_volume_down": "HassSetVolumeRelative", "audio_volume_up": "HassSetVolumeRelative",
    "audio_volume_mute": "HassMediaPlayerMute", "iot_cleaning": "HassVacuumStart",
    "iot_hue_lightchange": "HassLightSet", "iot_hue_lightdim": "HassLightSet", "iot_hue_lightup": "HassLightSet",
    "iot_hue_lightoff": "HassTurnOff", "iot_hue_lighton": "HassTurnOn",
    "iot_wemo_off": "HassTurnOff", "iot_wemo_on": "HassTurnOn",
    "lists_createoradd": "HassListAddItem", "lists_remove": "HassListRemoveItem",
    "play_music": "HassMediaSearchAndPlay", "weather_query": "HassGetWeather",
}  # fmt: skip
# The same wish may be carried out by either of two intents.
ALIKE = [
    {"HassListAddItem", "HassShoppingListAddItem"},
    {"HassListRemoveItem", "HassShoppingListCompleteItem", "HassListCompleteItem"},
    {"HassVacuumStart", "HassVacuumCleanArea"},
]
LEVEL = r"\d+|half|max\w*|(ten|(eigh|nine|thir|four|fif|six|seven)teen|eleven|twelve|(twen|thir|for|fif|six|seven|eigh|nine)ty|one|two|three|four|five|six|seven|eight|nine|zero)( \w+)?"
PLACE = re.compile(r"\b(in|at|of|for|from|between|zone|when|convert|than|est|pst|gmt|central|mountain|eastern|pacific)\b")
OTHER_DAY = re.compile(r"\b(tomorrow|yesterday|next|from now|ago|last|after|before|easter|christmas|days|was|will|\w+th|\w+(mon|tues|wednes|thurs|fri|satur|sun)day)\b")


def alike(intent: str) -> set[str]:
    """The intents that carry out the same wish."""
    return next((group for group in ALIKE if intent in group), {intent})


def hwu_intent(label: str, text: str) -> str | None:
    """The intent of a sentence of HWU64."""
    if label == "datetime_query":
        return clock_intent(text)
    if label == "iot_coffee":
        switched = re.search(r"\b(turn|switch|start|power|put|set)\b.*\b(on|machine|maker|pot)\b", text)
        return "HassTurnOn" if switched else OUT
    intent = HWU.get(label, OUT)
    # What the words say goes before a label that is coarser than Home Assistant's intents.
    if intent == "HassSetVolumeRelative" and re.search(rf"\bto (a |the )?({LEVEL})\b", text):
        return "HassSetVolume"
    if intent == "HassMediaPlayerMute" and re.search(r"\bpause\b", text):
        return "HassMediaPause"
    if intent == "HassMediaSearchAndPlay" and re.search(r"\b(resume|unpause)\b", text):
        return "HassMediaUnpause"
    if intent == "HassMediaSearchAndPlay" and re.search(r"\b(next|skip) ((to )?(the )?next )?(song|track)\b|\b(song|track) next\b", text):
        return "HassMediaNext"
    shopping = re.search(r"\b(shopping|grocer\w+)\b", text)
    if intent == "HassListAddItem" and shopping:
        return "HassShoppingListAddItem"
    if intent == "HassListRemoveItem" and shopping:
        return "HassShoppingListCompleteItem"
    if intent == "HassVacuumStart" and re.search(r"\b(room|kitchen|hall\w*|bedroom|bathroom|garage|office|den|study|basement)\b", text):
        return "HassVacuumCleanArea"
    return intent


def clock_intent(text: str) -> str | None:
    """Time or date of here and now; elsewhere or another day is out of scope."""
    if PLACE.search(text) or OTHER_DAY.search(text):
        return OUT
    if re.search(r"\b(date|day|month|year)\b", text):
        return None if "time" in text else "HassGetCurrentDate"
    return "HassGetCurrentTime" if re.search(r"\b(time|hour|clock|o'clock)\b", text) else None


def clinc_intent(label: str, text: str) -> str | None:
    """The intent of a sentence of CLINC150."""
    if label in ("time", "date"):
        return clock_intent(text)
    if label == "change_volume":
        number = re.search(r"\d|\b(one|two|three|four|five|six|seven|eight|nine|ten|max\w*|full)\b", text)
        return "HassSetVolume" if number else "HassSetVolumeRelative"
    if label == "timer":
        return "HassStartTimer" if re.search(r"\b(set|start|begin|create|put|need)\b", text) else None
    if label in ("shopping_list_update", "todo_list_update"):
        return list_intent(text, shopping=label.startswith("shopping"))
    return {
        "weather": "HassGetWeather", "next_song": "HassMediaNext", "play_music": "HassMediaSearchAndPlay",
        "smart_home": None, "cancel": None, "greeting": None, "who_made_you": "HassRespond",
        "what_can_i_ask_you": "HassRespond",
    }.get(label, OUT)  # fmt: skip


def list_intent(text: str, shopping: bool) -> str | None:
    """Whether a sentence adds to a list or takes from it; None if it says both or neither."""
    adds = re.search(r"\b(add|put|include|place|insert|need|write)\b", text)
    takes = re.search(r"\b(remove|delete|take|off|rid|clear|erase|cross|drop|scratch)\b", text)
    if bool(adds) == bool(takes):
        return None
    if adds:
        return "HassShoppingListAddItem" if shopping else "HassListAddItem"
    return "HassShoppingListCompleteItem" if shopping else "HassListRemoveItem"


# -------------------------------------------------------------------------- reading


def read_pairs(folder: pathlib.Path) -> list[tuple[str, str]]:
    """(text, label) of a folder with seq.in and label."""
    texts = (folder / "seq.in").read_text().splitlines()
    return [(t.strip(), label.strip()) for t, label in zip(texts, (folder / "label").read_text().splitlines())]


def hwu(data: pathlib.Path) -> list[Sentence]:
    """HWU64 train, with the tags that the annotated corpus (fold 1, train) knows."""
    spans = hwu_spans(data)
    found = []
    for text, label in read_pairs(data / "intent/hwu64/train"):
        found.append(Sentence(text, hwu_intent(label, text), f"hwu:{label}", spans.get(" ".join(w for w, _, _ in features.words(text)))))
    return found


ENTITY = {
    "house_place": "area", "color_type": "color", "list_name": "name", "song_name": "search_query",
    "artist_name": "search_query", "music_genre": "search_query", "playlist_name": "search_query",
}  # fmt: skip
DOMAIN_OF_LABEL = {"hue_lightoff": "domain", "hue_lighton": "domain", "hue_lightup": "domain", "hue_lightdim": "domain"}
ANNOTATED = ("iot_", "lists_", "play_music", "audio_")
LIGHTS = {"light", "lights", "lamp", "lamps", "lighting"}


def hwu_spans(data: pathlib.Path) -> dict[str, list[str]]:
    """{words of a sentence: tags}, for the home commands of the annotated corpus."""
    found = {}
    for path in sorted((data / "intent/hwu64_spans/trainset").glob("*.csv")):
        if not path.stem.startswith(ANNOTATED) or path.stem == "iot_coffee":
            continue
        for row in csv.DictReader(path.open(newline=""), delimiter=";"):
            words, tags = annotated_words(row["answer_annotation"], path.stem)
            found[" ".join(words)] = tags
    return found


def annotated_words(annotation: str, label: str) -> tuple[list[str], list[str]]:
    """Words and tags of `turn off [house_place : kitchen] lights`."""
    words, tags = [], []
    for part in re.split(r"(\[[^\]]*\])", annotation):
        slot, text = None, part
        if part.startswith("[") and ":" in part:
            entity, text = part[1:-1].split(":", 1)
            slot = ENTITY.get(entity.strip())
            if entity.strip() == "device_type":
                slot = "name" if label.startswith("iot_wemo") or label == "iot_cleaning" else None
        for i, (word, _, _) in enumerate(features.words(text)):
            words.append(word)
            tags.append("O" if slot is None else ("I-" if i else "B-") + slot)
    if label.startswith("iot_hue"):
        tags = ["B-domain" if t == "O" and w in LIGHTS else t for w, t in zip(words, tags)]
    return words, tags


def clinc(data: pathlib.Path) -> list[Sentence]:
    """CLINC150: train and its out-of-scope training sentences."""
    parts = json.loads((data / "intent/clinc150/data_oos_plus.json").read_text())
    found = [Sentence(text, clinc_intent(label, text), f"clinc:{label}") for text, label in parts["train"]]
    return found + [Sentence(text, OUT, "clinc:oos") for text, _ in parts["oos_train"]]


def snips(data: pathlib.Path, limit: int) -> list[Sentence]:
    """SNIPS train, at most `limit` sentences of each of its intents."""
    known = {"PlayMusic": "HassMediaSearchAndPlay", "GetWeather": "HassGetWeather"}
    counts: collections.Counter = collections.Counter()
    found = []
    for text, label in read_pairs(data / "intent/snips/train"):
        counts[label] += 1
        if counts[label] <= limit:
            found.append(Sentence(text, known.get(label, OUT), f"snips:{label}"))
    return found


def training(data: pathlib.Path) -> list[Sentence]:
    """Everything that may be trained on, without repetitions."""
    seen, found = set(), []
    for sentence in hwu(data) + clinc(data) + snips(data, 600):
        if sentence.text not in seen:
            seen.add(sentence.text)
            found.append(sentence)
    return found
