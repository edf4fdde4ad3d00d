"""Runs Home Assistant with its MQTT integration, and uses moed as its owner would.

    run_home_assistant.py PORT PID

PORT is a broker's on loopback, to which moed, process PID, is connected as node `hub`, with models/intent
and the home of `moed demo`. Prints the entities that appear by themselves, asks a sentence through
one, and ends moed, whose entities must then be unavailable. See tests/clients/home_assistant.
"""

import asyncio
import os
import signal
import sys
import tempfile
from pathlib import Path

from homeassistant import bootstrap, config_entries, core_config, loader
from homeassistant.core import HomeAssistant
from homeassistant.setup import async_setup_component

SENTENCE = "turn on teh kitchn light"
ASK, ANSWER = "text.moed_hub_ask_intent", "sensor.moed_hub_answer_of_intent"


async def started(directory: str, port: int) -> HomeAssistant:
    """Home Assistant without a user interface, with the broker that its owner has added."""
    (Path(directory) / "configuration.yaml").write_text("")
    hass = HomeAssistant(directory)
    loader.async_setup(hass)
    hass.config.skip_pip = True
    hass.config_entries = config_entries.ConfigEntries(hass, {})
    await bootstrap.async_load_base_functionality(hass)
    await core_config.async_process_ha_core_config(hass, {})
    for component in ("homeassistant", "mqtt"):
        assert await async_setup_component(hass, component, {}), component
    await hass.async_start()
    broker = config_entries.ConfigEntry(
        domain="mqtt", title="broker", source="user", unique_id=None, version=1, minor_version=2,
        data={"broker": "127.0.0.1", "port": port, "protocol": "5"}, options={},
        discovery_keys={}, subentries_data=None)
    await hass.config_entries.async_add(broker)
    assert broker.state is config_entries.ConfigEntryState.LOADED, broker.reason
    return hass


async def until(hass: HomeAssistant, entity: str, holds) -> None:
    """Waits until it holds of the entity's state: ten seconds at most."""
    for _ in range(100):
        state = hass.states.get(entity)
        if state is not None and holds(state.state):
            return
        await asyncio.sleep(0.1)
    raise SystemExit(f"{entity}: after 10 s, it is {state and state.state}")


async def main(port: int, daemon: int) -> None:
    with tempfile.TemporaryDirectory() as directory:
        hass = await started(directory, port)
        for entity in (ASK, ANSWER):
            await until(hass, entity, lambda state: state != "unavailable")
        await hass.async_block_till_done()
        ours = sorted(entity for entity in hass.states.async_entity_ids() if "moed_hub" in entity)
        for entity in ours:
            state = hass.states.get(entity)
            print(f"{entity}: {state.state} ({state.attributes['friendly_name']})")
        await hass.services.async_call(
            "text", "set_value", {"entity_id": ASK, "value": SENTENCE}, blocking=True)
        await until(hass, ANSWER, lambda state: state == "HassTurnOn")
        answer = hass.states.get(ANSWER).attributes
        print(f"{SENTENCE!r}: {answer['intent']} {answer['slots']} -> {answer['entities']}")
        assert answer["entities"] == ["light.kitchen"], answer
        os.kill(daemon, signal.SIGKILL)
        for entity in ours:
            await until(hass, entity, lambda state: state == "unavailable")
        print(f"moed is killed: all {len(ours)} are unavailable")
        await hass.async_stop(force=True)


asyncio.run(main(int(sys.argv[1]), int(sys.argv[2])))
