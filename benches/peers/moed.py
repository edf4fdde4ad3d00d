"""Drives the bench program `peer`, or another that speaks as it does: see ../peer.rs."""

import contextlib
import os
import subprocess
import tempfile

import numpy as np


class Peer:
    def __init__(self, program, *arguments):
        self.process = subprocess.Popen(
            [program, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def ask(self, *words):
        """The answer's values by their keys."""
        line = " ".join(map(str, words))
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        status, _, rest = self.process.stdout.readline().strip().partition(" ")
        if status != "ok":
            raise RuntimeError(f"peer: {line}: {rest or 'it ended'}")
        return dict(pair.split("=", 1) for pair in rest.split())

    def __enter__(self):
        return self

    def __exit__(self, *_):
        with contextlib.suppress(BrokenPipeError):  # it ended before its time
            self.process.stdin.close()
        self.process.wait()


def run(side, rows, count):
    """`run` of a side that has a peer and a name."""
    side.peer.ask("run", side.name, rows, count)


def output(side, rows, dims):
    """Its output on the first set of inputs."""
    with tempfile.NamedTemporaryFile() as file:
        side.peer.ask("output", side.name, rows, 0, file.name)
        return np.fromfile(file.name, "<f4").reshape(dims)


def load_model(peer, directory, name, alias=None):
    """Loads a model of models.py, to be called `alias`, and gives what loading took."""
    return peer.ask("load", alias or name, directory, f"{name}.onnx")


def figure(name, value, unit):
    """Prints a figure, with four digits."""
    digits = 0 if value == 0 else max(0, 3 - len(str(int(abs(value)))) + (abs(value) < 1))
    print(f"engine_{name} = {value:.{digits}f} {unit}", flush=True)


def note(text):
    print(f"# {text}", flush=True)


def anonymous_kib():
    """Memory of this process that no file backs."""
    with open("/proc/self/smaps_rollup") as rollup:
        return next(int(line.split()[1]) for line in rollup if line.startswith("Anonymous:"))


def load_average():
    return " ".join(f"{load:.1f}" for load in os.getloadavg())
