#!/usr/bin/env python3
"""Asks over loopback TCP with NVIDIA's client of the Open Inference Protocol.

    tests/clients/triton.py HOST:PORT
"""

import sys

import numpy as np
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException


def infer(client, model, name, values, datatype, is_binary, **options):
    given = triton.InferInput(name, values.shape, datatype)
    given.set_data_from_numpy(values, binary_data=is_binary)
    return client.infer(model, [given], **options)


def main(address):
    client = triton.InferenceServerClient(address, concurrency=4)
    assert client.is_server_live() and client.is_server_ready()
    assert client.get_server_metadata()["name"] == "moed"
    assert client.is_model_ready("double") and client.is_model_ready("double", "1.0.0")
    assert not client.is_model_ready("loading") and not client.is_model_ready("none")
    metadata = client.get_model_metadata("double")
    assert metadata["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}], metadata
    statistics = client.get_inference_statistics("double")["model_stats"][0]
    assert statistics["inference_stats"]["success"]["count"] == 7, statistics

    x = np.arange(8, dtype=np.float32).reshape(2, 4) / 3
    for is_binary in [True, False]:
        for wanted in [True, False]:
            outputs = [triton.InferRequestedOutput("y", binary_data=wanted)]
            result = infer(
                client, "double", "x", x, "FP32", is_binary, outputs=outputs, request_id="a",
                priority=1, timeout=5_000_000,
            )
            assert result.get_response()["id"] == "a"
            np.testing.assert_array_equal(result.as_numpy("y"), 2 * x)
    # Without `outputs` it asks for binary data.
    np.testing.assert_array_equal(infer(client, "double", "x", x, "FP32", True).as_numpy("y"), 2 * x)
    half = infer(client, "half", "x", x, "FP32", True).as_numpy("y")
    np.testing.assert_array_equal(half, (2 * x).astype(np.float16))

    text = np.array(["turn on the light".encode()], dtype=np.object_)
    for is_binary in [True, False]:
        answer = infer(client, "intent", "text", text, "BYTES", is_binary).as_numpy("answer")
        assert b"HassTurnOn" in answer[0], answer

    outputs = [triton.InferRequestedOutput("y", class_count=2)]
    classes = infer(client, "double", "x", x, "FP32", True, outputs=outputs).as_numpy("y")
    assert classes[0].tolist() == [b"2.000000:3", b"1.333333:2"], classes

    for name, dtype, datatype in [
        ("bool", np.bool_, "BOOL"), ("i8", np.int8, "INT8"), ("i16", np.int16, "INT16"),
        ("i32", np.int32, "INT32"), ("i64", np.int64, "INT64"), ("u8", np.uint8, "UINT8"),
        ("u16", np.uint16, "UINT16"), ("u32", np.uint32, "UINT32"), ("u64", np.uint64, "UINT64"),
        ("f32", np.float32, "FP32"), ("f64", np.float64, "FP64"),
    ]:
        values = np.array([0, 1, 100], dtype=dtype)
        for is_binary in [True, False]:
            outputs = [triton.InferRequestedOutput(name, binary_data=is_binary)]
            result = infer(client, "echo", name, values, datatype, is_binary, outputs=outputs)
            np.testing.assert_array_equal(result.as_numpy(name), values)

    waiting = [
        client.async_infer("slow", [text_input(text)]) for _ in range(8)
    ]
    for request in waiting:
        assert b"HassTurnOn" in request.get_result().as_numpy("answer")[0]

    try:
        infer(client, "double", "z", x, "FP32", True, outputs=[triton.InferRequestedOutput("z")])
        raise AssertionError("an unknown output was answered")
    except InferenceServerException as error:
        assert "the model gives: y" in error.message(), error
    client.close()


def text_input(values):
    given = triton.InferInput("text", values.shape, "BYTES")
    given.set_data_from_numpy(values)
    return given


if __name__ == "__main__":
    main(sys.argv[1])
