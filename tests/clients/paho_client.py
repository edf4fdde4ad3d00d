"""paho-mqtt asks the daemon `test` through the broker on a port of this host.

    paho_client.py PORT
"""

import json
import queue
import sys

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

PATIENCE_S = 20


def connect(port: int, protocol: int) -> tuple[mqtt.Client, queue.Queue]:
    messages: queue.Queue = queue.Queue()
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, protocol=protocol)
    client.on_message = lambda _client, _data, message: messages.put(message)
    client.on_subscribe = lambda *_: messages.put("subscribed")
    client.connect("127.0.0.1", port)
    client.loop_start()
    return client, messages


def listen(client: mqtt.Client, messages: queue.Queue, topic: str) -> None:
    client.subscribe(topic, qos=1)
    assert messages.get(timeout=PATIENCE_S) == "subscribed"


def ask_in_v5(port: int) -> None:
    client, messages = connect(port, mqtt.MQTTv5)
    listen(client, messages, "paho/answers")
    for qos in (0, 1, 2):
        properties = Properties(PacketTypes.PUBLISH)
        properties.ResponseTopic = "paho/answers"
        properties.CorrelationData = bytes([0, qos, 255])
        properties.ContentType = "application/json"
        properties.MessageExpiryInterval = 10
        body = json.dumps({"text": "hello"})
        client.publish("moed/test/models/intent/infer", body, qos, properties=properties)
        answer = messages.get(timeout=PATIENCE_S)
        assert answer.properties.CorrelationData == bytes([0, qos, 255])
        assert dict(answer.properties.UserProperty)["status"] == "200"
        assert json.loads(answer.payload)["answer"]["text"] == "hello"
    client.disconnect()


def ask_in_v311(port: int) -> None:
    client, messages = connect(port, mqtt.MQTTv311)
    listen(client, messages, "moed/test/models/intent/result/paho")
    body = json.dumps({"text": "hello", "id": "7"})
    client.publish("moed/test/models/intent/infer/paho", body, qos=1)
    answer = json.loads(messages.get(timeout=PATIENCE_S).payload)
    assert answer["id"] == "7" and answer["answer"]["text"] == "hello"
    client.disconnect()


if __name__ == "__main__":
    ask_in_v5(int(sys.argv[1]))
    ask_in_v311(int(sys.argv[1]))
    print("ok")
