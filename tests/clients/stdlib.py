#!/usr/bin/env python3
"""Asks over the Unix socket SOCKET with nothing but Python's own library.

    tests/clients/stdlib.py SOCKET
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


def main(path):
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
    assert connection.sock is kept, "all over one connection"


if __name__ == "__main__":
    main(sys.argv[1])
