"""The do-it-yourself way that moed is compared with: paho-mqtt and onnxruntime in one script.

    mqtt_paho.py PORT

A client of the broker on that port of this host. It answers what comes on `diy/infer` with the
outputs of a small model, and what comes on `diy/echo` with itself, on the response topic, at the
QoS at which it came. It is written as their documentation shows it: nothing is tuned, nothing is
made slow.
"""

import json
import sys

import numpy as np
import onnxruntime
import paho.mqtt.client as mqtt
from onnx import TensorProto, helper, numpy_helper
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

SIZE = 64


def model() -> onnxruntime.InferenceSession:
    """A matrix product and a ReLU: about no work, as what is compared is the way."""
    weights = np.random.default_rng(1).standard_normal((SIZE, SIZE)).astype(np.float32)
    row = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, SIZE]) for name in "xy"]
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("Relu", ["h"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes, "small", [row[0]], [row[1]], [numpy_helper.from_array(weights, "w")]
    )
    opset = [helper.make_opsetid("", 17)]
    proto = helper.make_model(graph, opset_imports=opset, ir_version=9)
    return onnxruntime.InferenceSession(
        proto.SerializeToString(), providers=["CPUExecutionProvider"]
    )


def main() -> None:
    session = model()

    def answer(client: mqtt.Client, _data: object, message: mqtt.MQTTMessage) -> None:
        if message.topic == "diy/infer":
            request = json.loads(message.payload)
            x = np.asarray(request["x"], np.float32)
            [y] = session.run(None, {"x": x})
            reply = json.dumps({"y": y.tolist()})
        else:
            reply = message.payload
        properties = Properties(PacketTypes.PUBLISH)
        # mosquitto_rr sends none.
        if correlation := getattr(message.properties, "CorrelationData", None):
            properties.CorrelationData = correlation
        client.publish(message.properties.ResponseTopic, reply, message.qos, properties=properties)

    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
    client.on_message = answer
    client.on_subscribe = lambda *_: print("ready", flush=True)
    client.connect("127.0.0.1", int(sys.argv[1]))
    client.subscribe("diy/#", qos=1)
    client.loop_forever()


if __name__ == "__main__":
    main()
