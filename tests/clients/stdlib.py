#!/usr/bin/env python3
"""Asks over the Unix socket SOCKET, and as the owner over ADMIN, with nothing but Python's own
library.

    tests/clients/stdlib.py SOCKET ADMIN
"""

import array
import http.client
import json
import socket
import sys


class Connection(http.client.HTTPConnection):
    """HTTP over a Unix socket: all that it takes."""

    def __init__(self, path):
        super().__init__("moed", timeout=20)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


def ask(connection, method, path, body=None, headers={}):
    connection.request(method, path, body, headers)
    response = connection.getresponse()
    return response, response.read()


def get(connection, path):
    response, body = ask(connection, "GET", path)
    assert response.status == 200, body
    return json.loads(body)


def post(connection, path, value):
    response, body = ask(connection, "POST", path, json.dumps(value))
    assert response.status == 200, body
    return json.loads(body)


def check_documents(connection):
    server = get(connection, "/v2")
    assert server["name"] == "moed" and "binary_tensor_data" in server["extensions"], server
    assert get(connection, "/v2/health/ready")["ready"] is True
    assert get(connection, "/v2/models/double/ready")["ready"] is True
    model = get(connection, "/v2/models/double/versions/1.0.0")
    assert model["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}], model
    statistics = get(connection, "/v2/models/double/stats")["model_stats"][0]
    assert statistics["name"] == "double" and "inference_stats" in statistics, statistics
    given = {"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}
    wanted = {"name": "y", "parameters": {"classification": 2}}
    request = {"inputs": [given], "outputs": [wanted]}
    classes = post(connection, "/v2/models/double/infer", request)["outputs"][0]
    assert classes["data"] == ["8.000000:3", "6.000000:2"], classes


def check_repository(connection):
    models = post(connection, "/v2/repository/index", {})
    states = {model["name"]: model["state"] for model in models}
    assert states["intent"] == "READY" and states["loading"] == "UNAVAILABLE", states
    ready = post(connection, "/v2/repository/index", {"ready": True})
    assert all(model["state"] == "READY" for model in ready), ready
    for verb in ("load", "unload", "rollback"):
        assert post(connection, f"/v2/repository/models/intent/{verb}", {}) == {}


def main(path, admin_path):
    connection = Connection(path)
    for _ in range(100):
        response, body = ask(
            connection, "POST", "/v2/models/intent/infer", json.dumps({"text": "schalte an: é"})
        )
        assert response.status == 200, body
        assert json.loads(body)["answer"]["text"] == "schalte an: é", body
    kept = connection.sock
    assert kept is not None, "the connection is kept"

    # Binary data, both ways.
    values = array.array("f", [0.5, 1.5, -2.0, 4.0])
    header = json.dumps(
        {
            "inputs": [
                {
                    "name": "x",
                    "shape": [1, 4],
                    "datatype": "FP32",
                    "parameters": {"binary_data_size": 16},
                }
            ],
            "parameters": {"binary_data_output": True},
        }
    ).encode()
    response, body = ask(
        connection,
        "POST",
        "/v2/models/double/infer",
        header + values.tobytes(),
        {"Inference-Header-Content-Length": str(len(header))},
    )
    assert response.status == 200, body
    length = int(response.headers["Inference-Header-Content-Length"])
    assert array.array("f", body[length:]).tolist() == [1.0, 3.0, -4.0, 8.0], body

    response, body = ask(connection, "POST", "/v2/models/full/infer", '{"text": "on"}')
    assert (response.status, response.headers["Retry-After"]) == (429, "2"), body
    assert json.loads(body)["code"] == "overloaded"
    # A generator as body is sent in chunks.
    response, body = ask(
        connection, "POST", "/v2/models/intent/infer", (part for part in [b'{"text":', b'"on"}'])
    )
    assert json.loads(body)["answer"]["text"] == "on", body
    response, body = ask(connection, "HEAD", "/metrics")
    assert (response.status, body) == (200, b"")
    check_documents(connection)
    assert connection.sock is kept, "all over one connection"
    check_repository(Connection(admin_path))


if __name__ == "__main__":
    main(*sys.argv[1:])
