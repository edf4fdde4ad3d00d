"""assist-mini: what its expected state changes ask for, and the test end to end with `moed resolve`."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import random
import re
import subprocess
import tempfile

import baselines
import evalsets
import noise
import settings

STATES = {
    ("cover", "open"): "HassTurnOn", ("cover", "closed"): "HassTurnOff", ("valve", "open"): "HassTurnOn",
    ("valve", "closed"): "HassTurnOff", ("lock", "locked"): "HassTurnOn", ("lock", "unlocked"): "HassTurnOff",
    ("vacuum", "cleaning"): "HassVacuumStart", ("vacuum", "returning"): "HassVacuumReturnToBase",
    ("media_player", "paused"): "HassMediaPause", ("media_player", "playing"): "HassMediaUnpause",
    ("todo", "1"): "HassListAddItem",
}  # fmt: skip


def with_intents(case):
    """The case with the intents that bring about its expected changes."""
    entity, change = next(iter(case.expect.items()))
    domain, state, attributes = entity.split(".")[0], str(change.get("state", "")), change.get("attributes") or {}
    if re.search(r"\d\s*%", case.text):
        intent = {"light": "HassLightSet", "cover": "HassSetPosition", "valve": "HassSetPosition", "media_player": "HassSetVolume", "fan": "HassFanSetSpeed"}[domain]
    elif "media_track" in attributes:
        intent = "HassMediaNext"
    elif attributes.get("volume_level") == 0.0:
        intent = "HassMediaPlayerMute"
    else:
        intent = STATES.get((domain, state)) or {"on": "HassTurnOn", "off": "HassTurnOff"}[state]
    return dataclasses.replace(case, intents=evalsets.corpora.alike(intent))


def effect(intent, domain, slots):
    """(state or None, attributes) that an intent brings about in a device."""
    on_off = {"cover": ("open", "closed"), "valve": ("open", "closed"), "lock": ("locked", "unlocked")}.get(domain, ("on", "off"))
    plain = {
        "HassTurnOn": (on_off[0], {}), "HassTurnOff": (on_off[1], {}), "HassVacuumStart": ("cleaning", {}),
        "HassVacuumCleanArea": ("cleaning", {}), "HassVacuumReturnToBase": ("returning", {}), "HassMediaPause": ("paused", {}),
        "HassMediaUnpause": ("playing", {}), "HassMediaNext": (None, {"media_track": 2}), "HassMediaPlayerMute": (None, {"volume_level": 0.0}),
        "HassListAddItem": ("1", {}), "HassShoppingListAddItem": ("1", {}),
    }  # fmt: skip
    if intent in plain:
        return plain[intent]
    if intent == "HassLightSet":
        return "on", {"brightness": round(float(slots.get("brightness", -1)) * 2.55 + 0.01)}
    if intent == "HassSetPosition":
        return "open", {"current_position": float(slots.get("position", -1))}
    if intent == "HassSetVolume":
        return None, {"volume_level": float(slots.get("volume_level", -100)) / 100}
    return None, {"?": 1}


JUDGED = {"media_track", "volume_level", "current_position"}


def right_action(answer, expect) -> bool:
    """Whether an answer acts on exactly the expected devices in the expected way."""
    if set(answer.get("entities") or []) != set(expect):
        return False
    for entity, change in expect.items():
        state, attributes = effect(answer["intent"], entity.split(".")[0], answer.get("slots") or {})
        if state is not None and "state" in change and str(change["state"]) != state:
            return False
        wanted = {k: v for k, v in (change.get("attributes") or {}).items() if k in JUDGED or (k == "brightness" and v not in (0, None))}
        if any(k not in attributes or abs(attributes[k] - v) > 0.01 for k, v in wanted.items() if not (k == "current_position" and answer["intent"] in ("HassTurnOn", "HassTurnOff"))):
            return False
        if state is None and not wanted:
            return False
    return True


def home_toml(home) -> str:
    """A test's home in the daemon's form."""
    lines = []

    def table(kind, **fields):
        lines.append(f"[[{kind}]]")
        lines.extend(f"{k} = {json.dumps(v)}" for k, v in fields.items() if v not in (None, ""))

    ids = {}
    for kind in ("floors", "areas"):
        for thing in home.get(kind) or []:
            name = baselines.spelled(thing["name"])
            made = str(thing.get("id") or evalsets.plain(name).replace(" ", "_"))
            ids[made] = ids[name] = made
            floor = ids.get(str(thing.get("floor")))
            table(kind, id=made, name=name, aliases=thing.get("aliases") or [], floor=floor)
    for thing in home.get("entities") or []:
        name, domain = baselines.spelled(thing["name"]), baselines.domain_of(thing)
        made = str(thing.get("id") or f"{domain}.{evalsets.plain(name).replace(' ', '_')}")
        kind = {"person": "people", "todo": "lists"}.get(domain, "devices")
        device_class = str((thing.get("attributes") or {}).get("device_class", "")).split(".")[-1].lower()
        more = {"area": ids.get(str(thing.get("area"))), "device_class": device_class} if kind == "devices" else {}
        table(kind, id=made, name=name, aliases=thing.get("aliases") or [], **more)
    return "\n".join(lines) + "\n"


def resolve(program, folder, home, texts):
    """The daemon's answers to the sentences of one home."""
    with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
        file.write(home_toml(home))
        file.flush()
        lines = "".join(json.dumps({"text": text}) + "\n" for text in texts)
        done = subprocess.run([program, "resolve", "--home", file.name, folder], input=lines, capture_output=True, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def by_home(cases):
    """Cases with the same home together."""
    groups = {}
    for case in cases:
        groups.setdefault(id(case.home), []).append(case)
    return groups.values()


def end_to_end(program: pathlib.Path, folder, parts, noises, disturbed, language, table):
    """Prints assist-mini's share of right actions, and intent + slots of Home Assistant's tests."""
    from evaluate import same

    mini, tests = parts.get("assist_mini", []), parts.get("ha_tests", [])
    row = table.setdefault("moed_program", {})
    for kind in noises if mini else []:
        makers = noise.Noise(settings.HERE / language, random.Random(f"{kind} 1"))
        right = 0
        for group in by_home(mini):
            answers = resolve(program, folder, group[0].home, [disturbed(c.text, kind, makers) for c in group])
            for case, answer in zip(group, answers):
                good = right_action(answer, case.expect)
                right += good
                if not good and kind == "clean":
                    print(f"# missed: {case.text}: {json.dumps(answer)[:300]}")
        row[f"assist_mini {kind}"] = 100 * right / len(mini)
        print(f"intent_assist_mini_end_to_end_{kind} = {100 * right / len(mini):.1f} %", flush=True)
    for kind in noises if tests else []:
        makers = noise.Noise(settings.HERE / language, random.Random(f"{kind} 1"))
        hits = full = 0
        for group in by_home(tests):
            answers = resolve(program, folder, group[0].home, [disturbed(c.text, kind, makers) for c in group])
            for case, answer in zip(group, answers):
                hit = answer.get("intent") in case.intents
                hits += hit
                full += hit and all(same((answer.get("slots") or {}).get(k), v) for k, v in case.slots.items())
        row[f"ha_tests {kind}"] = 100 * hits / len(tests)
        row[f"ha_tests {kind} slots"] = 100 * full / len(tests)
        print(f"intent_moed_ha_tests_{kind}_accuracy = {100 * hits / len(tests):.1f} %", flush=True)
        print(f"intent_moed_ha_tests_{kind}_intent_and_slots = {100 * full / len(tests):.1f} %", flush=True)
