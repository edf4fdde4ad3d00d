"""Compares moed with what people write themselves (server.py), in one run.

    python daemon.py --moed PROGRAM --models DIRECTORY [--quick]

Both answer on a Unix socket, compute the graph of models/intent on one thread, take the same
tensors as JSON and give all outputs as JSON. For moed the graph is bundled with the task `tensor`,
which does no more than the other side does. One Python client, http.client over one connection,
asks both in turns, so that whatever else the machine does meets both. Outputs are compared first.
"""

import argparse
import contextlib
import http.client
import json
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

PROJECT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(PROJECT / "models" / "recipe"))

import features  # noqa: E402

SENTENCES = (
    "turn on the kitchen light",
    "set the thermostat to 21 degrees",
    "is the garage door open",
    "start a pasta timer for 9 minutes",
    "how warm is it in the living room",
)

# Of moed's outputs and onnxruntime's, in units of their rms; see compare.py.
DIFFERENCE_MAX = 0.05

PATIENCE_SECONDS = 60


def figure(name, value, unit):
    print(f"daemon_{name} = {value:.4g} {unit}", flush=True)


class Connection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path):
        super().__init__("x", timeout=PATIENCE_SECONDS)
        self.path = str(path)

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)

    def ask(self, method, target, body=None):
        self.request(method, target, body, {"Content-Type": "application/json"})
        response = self.getresponse()
        return response.status, response.read()


class Side:
    """A server as a process, how long it took to answer, and a connection to it."""

    def __init__(self, name, command, path, ready, target):
        self.name, self.target, self.times = name, target, []
        start = time.perf_counter()
        self.log = path.with_suffix(".log")
        with self.log.open("w") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=log)
        while True:
            with contextlib.suppress(OSError, http.client.HTTPException):
                connection = Connection(path)
                if connection.ask("GET", ready)[0] == 200:
                    break
            if self.process.poll() is not None or time.perf_counter() - start > PATIENCE_SECONDS:
                raise SystemExit(f"{name}: it did not become ready: {self.log.read_text()}")
            time.sleep(0.002)
        self.start = time.perf_counter() - start
        self.connection = connection

    def ask(self, body):
        status, answer = self.connection.ask("POST", self.target, body)
        if status != 200:
            raise SystemExit(f"{self.name}: {status}: {answer.decode()}")
        return answer

    def time(self, bodies, count):
        for at in range(count):
            body = bodies[at % len(bodies)]
            start = time.perf_counter()
            self.ask(body)
            self.times.append(time.perf_counter() - start)

    def outputs(self, body):
        answer = json.loads(self.ask(body))
        return {one["name"]: np.array(one["data"], np.float64) for one in answer["outputs"]}

    def rss(self):
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
        return int(line.split()[1]) * 1024

    def stop(self):
        self.process.terminate()
        self.process.wait()


def body(sentence):
    """The tensors of a sentence, as an Open Inference Protocol request."""
    ids = np.array(features.Features().ids(sentence), np.int64)
    inputs = [
        {"name": "ids", "shape": list(ids.shape), "datatype": "INT64", "data": ids.ravel().tolist()},
        {"name": "budget", "shape": [1], "datatype": "FP32", "data": [1.0]},
    ]
    return json.dumps({"inputs": inputs})


def compare(sides, body):
    ours, theirs = (side.outputs(body) for side in sides)
    for name, want in theirs.items():
        rms = np.sqrt(np.mean(want**2)) or 1.0
        difference = np.max(np.abs(ours[name] - want)) / rms
        if difference > DIFFERENCE_MAX:
            raise SystemExit(f"output {name}: the two sides differ by {difference:.3g} of its rms")


def commands(directory, moed, models):
    """Both sides' commands and paths, once the bundle is made."""
    bundle = directory / "models" / "graph"
    bundle.parent.mkdir()
    model = models / "intent" / "model.onnx"
    subprocess.run([moed, "bundle", model, "--to", bundle], check=True, stdout=subprocess.DEVNULL)
    ours, theirs = directory / "moed.sock", directory / "server.sock"
    serve = [moed, "serve", "--config", "/dev/null", "--threads", "1", "--socket", ours]
    server = Path(__file__).with_name("server.py")
    return (
        ("moed", [*serve, "--models", bundle.parent], ours, "/v2/health/ready",
         "/v2/models/graph/infer"),
        ("fastapi", [sys.executable, server, model, theirs], theirs, "/ready", "/infer"),
    )


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--moed", type=Path, required=True)
    arguments.add_argument("--models", type=Path, required=True)
    arguments.add_argument("--quick", action="store_true")
    given = arguments.parse_args()
    rounds, count, starts = (3, 50, 1) if given.quick else (40, 100, 5)
    bodies = [body(sentence) for sentence in SENTENCES]
    with tempfile.TemporaryDirectory() as directory:
        each = commands(Path(directory), given.moed.resolve(), given.models.resolve())
        started = {name: [] for name, *_ in each}
        for _ in range(starts):
            for name, *rest in each:
                side = Side(name, *rest)
                started[name].append(side.start)
                side.stop()
        sides = [Side(*one) for one in each]
        compare(sides, bodies[0])
        for side in sides:
            side.time(bodies, count)
            side.times.clear()
        for _ in range(rounds):
            for side in sides:
                side.time(bodies, count)
        print(f"# the same tensors as JSON, the same client in Python, {rounds} times {count} of each")
        measured = {
            side.name: {
                "p50": np.percentile(side.times, 50) * 1e6,
                "p99": np.percentile(side.times, 99) * 1e6,
                "rss": side.rss() / 1e6,
                "start": np.median(started[side.name]) * 1e3,
            }
            for side in sides
        }
        for side in sides:
            side.stop()
    for what, unit in (("p50", "us"), ("p99", "us"), ("rss", "MB"), ("start", "ms")):
        ours, theirs = measured["moed"][what], measured["fastapi"][what]
        figure(f"peer_{what}_moed", ours, unit)
        figure(f"peer_{what}_fastapi", theirs, unit)
        figure(f"peer_{what}_ratio", theirs / ours, "x")


if __name__ == "__main__":
    main()
