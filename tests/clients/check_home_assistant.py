"""Checks the discovery message of the tests against Home Assistant's own schemas.

    check_home_assistant.py

tests/clients/home_assistant runs it, with a Python that has Home Assistant. It reads the snapshot of
tests/it/mqtt/presence.rs.
"""

import asyncio
import copy
import json
import tempfile
from pathlib import Path

from homeassistant.components.mqtt import discovery, schemas, sensor, text, update
from homeassistant.core import HomeAssistant
from homeassistant.helpers import frame
from homeassistant.helpers.template import Template

PLATFORMS = {"sensor": sensor, "text": text, "update": update}
# What Home Assistant takes over from the device to its components.
SHARED = ("availability", "device", "origin", "qos")

folder = Path(__file__).parent.parent / "it/mqtt/snapshots"
[snapshot] = folder.glob("*home_assistant_finds_one_device*.snap")
document = json.loads(snapshot.read_text().split("---\n", 2)[2])


async def main(directory: str) -> None:
    hass = HomeAssistant(directory)
    frame.async_setup(hass)
    whole = discovery.MQTTDiscoveryPayload(copy.deepcopy(document))
    discovery._replace_all_abbreviations(whole)
    assert whole == document, "no key is taken for an abbreviation"
    schemas.DEVICE_DISCOVERY_SCHEMA(whole)
    for name, component in document["components"].items():
        config = {**{key: document[key] for key in SHARED}, **component}
        platform = PLATFORMS[config.pop("platform")]
        platform.DISCOVERY_SCHEMA(config)
        print(f"{name}: fits {platform.__name__}")

    def render(component: str, key: str, value: str) -> str:
        template = Template(document["components"][component][key], hass)
        return template.async_render_with_possible_json_value(value)

    state = '{"version": "1.0.0", "latest_version": "1.1.0"}'
    update_state = json.loads(render("intent_update", "value_template", state))
    assert update_state == {"installed_version": "1.0.0", "latest_version": "1.1.0"}
    assert render("intent_answer", "value_template", '{"intent": "HassTurnOn"}') == "HassTurnOn"
    assert render("intent_answer", "value_template", '{"code": "overloaded"}') == "overloaded"
    sentence = 'turn on the "big" light'
    request = json.loads(render("intent_sentence", "command_template", sentence))
    assert request == {"text": sentence}
    status = Template(document["availability"][0]["value_template"], hass)
    for value, expected in [("online", "online"), ("stopped", "offline"), ("offline", "offline")]:
        assert status.async_render_with_possible_json_value(value) == expected
    await hass.async_stop(force=True)
    print(f"ok: one device, {len(document['components'])} components")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(main(directory))
