"""What the student is compared with: hassil, gazetteer-matcher, TF-IDF with a linear SVM.

Each is a function of (text, home) that gives (intent, slots or None); `home` is a test's home:
{"areas": [...], "floors": [...], "entities": [...]}.
"""

from __future__ import annotations

import json

import numpy as np

import settings

CONTEXT = "Living Room"  # where the speaker is: both peers ask for it when a command names no room


def spelled(listed) -> str:
    """A name of Home Assistant's fixtures: a text, or {in, out}."""
    return str(listed.get("in", listed.get("out")) if isinstance(listed, dict) else listed)


def domain_of(entity) -> str:
    """The domain of a fixture's entity."""
    return entity.get("domain") or str(entity.get("id", "")).split(".")[0]


class Hassil:
    """Home Assistant's own matcher (hassil), with the home's names in its lists."""

    def __init__(self, language):
        from hassil.intents import Intents
        from home_assistant_intents import get_intents

        self.intents = Intents.from_dict(get_intents(language))
        self.homes = {}

    def lists(self, home):
        from hassil.intents import TextSlotList

        if id(home) not in self.homes:
            names = [(spelled(e["name"]), spelled(e["name"]), {"domain": domain_of(e)}) for e in home.get("entities") or []]
            areas = [spelled(a["name"]) for a in home.get("areas") or []]
            floors = [spelled(f["name"]) for f in home.get("floors") or []]
            self.homes[id(home)] = {
                "name": TextSlotList.from_tuples(names, name="name", allow_template=False),
                "area": TextSlotList.from_strings(areas, name="area", allow_template=False),
                "floor": TextSlotList.from_strings(floors, name="floor", allow_template=False),
            }
        return self.homes[id(home)]

    def __call__(self, text, home):
        from hassil.recognize import recognize_best

        found = recognize_best(text, self.intents, slot_lists=self.lists(home or {}), intent_context={"area": CONTEXT}, best_slot_name="name")
        if found is None:
            return settings.OUT, {}
        return found.intent.name, {k: e.value for k, e in found.entities.items()}


class Gazetteer:
    """gazetteer-matcher: fuzzy, resolves entities, rejects what does not fit."""

    def __init__(self):
        from gazetteer_matcher import GazetteerMatcher

        self.matcher = GazetteerMatcher(home={"areas": {}, "floors": {}, "entities": {}})
        self.last = None

    def home(self, home):
        """The home in its own form; ids are names, so that slots come back as names."""
        floors = {spelled(f["name"]): {"name": spelled(f["name"])} for f in home.get("floors") or []}
        by_id = {str(f.get("id")): spelled(f["name"]) for f in home.get("floors") or []}
        areas, area_ids = {}, {}
        for area in home.get("areas") or []:
            name = spelled(area["name"])
            area_ids[str(area.get("id", name))] = area_ids[name] = name
            floor = by_id.get(str(area.get("floor")), area.get("floor"))
            areas[name] = {"name": name} | ({"floor": floor} if floor in floors else {})
        entities = {}
        for i, entity in enumerate(home.get("entities") or []):
            made = {"name": spelled(entity["name"]), "domain": domain_of(entity), "area": area_ids.get(str(entity.get("area")))}
            kind = str((entity.get("attributes") or {}).get("device_class", "")).split(".")[-1].lower()
            entities[f"{made['name']}|{i}"] = made | ({"device_class": kind} if kind else {})
        return {"areas": areas, "floors": floors, "entities": entities}

    def __call__(self, text, home):
        if home is not self.last:
            self.matcher.set_home(self.home(home or {}))
            self.last = home
        areas = self.matcher.config.home["areas"] if isinstance(self.matcher.config.home, dict) else {}
        found = self.matcher.interpret(text, context_area=CONTEXT if CONTEXT in areas else next(iter(areas), None))
        if not found.accepted or not found.frames:
            return settings.OUT, {}
        frame = found.frames[0]
        return frame.intent, {k: str(v).split("|")[0] if k == "name" else v for k, v in frame.slots.items()}


class Svm:
    """TF-IDF of words and characters, and a linear SVM, trained on the same sentences as the student."""

    def __init__(self, work, limit=30_000):
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.pipeline import make_pipeline, make_union
        from sklearn.svm import LinearSVC

        data, texts = np.load(work / "data.npz"), json.loads((work / "texts.json").read_text())
        rng = np.random.default_rng(settings.SEED)
        base, first = np.unique(data["base"], return_index=True)
        dev, intent, group = (data[name][first] for name in ("dev", "intent", "group"))
        keep = ~dev & (intent >= 0)
        base, intent, public = base[keep], intent[keep], group[keep] > 0
        rows = np.concatenate([np.flatnonzero(public), rng.permutation(np.flatnonzero(~public))[:limit]])
        union = make_union(TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True),
                           TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), sublinear_tf=True, min_df=2))  # fmt: skip
        self.model = make_pipeline(union, LinearSVC(C=0.5)).fit([texts[b] for b in base[rows]], intent[rows])
        self.intents = data["intents"]

    def __call__(self, text, home):
        return str(self.intents[self.model.predict([text])[0]]), None
