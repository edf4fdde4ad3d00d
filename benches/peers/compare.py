"""Times moed, onnxruntime and ggml on the same files and the same inputs, in turns.

    python compare.py --peer PROGRAM --models DIRECTORY [--ggml PROGRAM] [--rounds N]
                      [--shapes s,m,g] [--rows 1,8,64]

With --ggml, q8_b32 is also computed by ggml. All compute on one thread, a few milliseconds each in
turn, so that whatever else the machine does meets all. A figure is the tenth percentile of the
thread's CPU time over all runs: what a call costs when it is not disturbed. Outputs are compared
first: wrong answers are not timed.
"""

import argparse
import contextlib
import gc
import time
from pathlib import Path

import ggml
import models
import moed
import numpy as np
import onnxruntime
from moed import figure, note

# What the ratios are about; the other variants are background, and run every few rounds.
MAIN = ("q8_b32", "q8_chan")
BACKGROUND_EVERY = 3
BATCH_SECONDS = 0.02

# Largest difference between the two sides' outputs, in units of their rms. Both round activations
# to 8 bits where weights are in blocks; a code that falls on the other side shows.
DIFFERENCE_MAX = 0.05

# Buffers that no cache holds, and that the last-level cache does.
DRAM_MIB, CACHE_MIB = 64, 8


class Onnxruntime:
    def __init__(self, directory, name):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        path = str(directory / f"{name}.onnx")
        self.session = onnxruntime.InferenceSession(path, options, ["CPUExecutionProvider"])
        self.ports = [port.name for port in self.session.get_inputs()]
        self.sets = {}
        self.times = {}

    def inputs(self, rows, sets):
        self.sets[rows] = [{port: arrays[port] for port in self.ports} for arrays in sets]
        self.times[rows] = []

    def run(self, rows, count):
        run, sets, times = self.session.run, self.sets[rows], self.times[rows]
        for _ in range(count):
            feeds = sets[len(times) % len(sets)]
            start = time.thread_time_ns()
            run(None, feeds)
            times.append(time.thread_time_ns() - start)

    def output(self, rows):
        return self.session.run(None, self.sets[rows][0])[0]

    def total(self, rows):
        """(tenth percentile in us, runs)"""
        return float(np.percentile(self.times[rows], 10)) / 1e3, len(self.times[rows])


class Moed:
    def __init__(self, peer, directory, shape, variant, ports):
        self.peer, self.directory, self.shape, self.variant = peer, directory, shape, variant
        self.name, self.ports = f"{shape}_{variant}", ports
        moed.load_model(peer, directory, file_of(shape, variant), self.name)

    def inputs(self, rows):
        files = [
            models.input_path_of(self.directory, self.shape, rows, port, self.variant)
            for port in self.ports
        ]
        self.peer.ask("inputs", self.name, rows, *files)

    run, output = moed.run, moed.output

    def total(self, rows):
        """(tenth percentile in us, runs, bytes of experts' weights read by a run)"""
        total = self.peer.ask("total", self.name, rows)
        return int(total["cpu_p10_ns"]) / 1e3, int(total["runs"]), int(total["bytes_per_run"])


def file_of(shape, variant):
    """The model file of a variant."""
    return f"{shape}_{'q8_b32' if variant == models.SAME else variant}"


class WrongAnswer(Exception):
    """One of the sides gives no answer, or another one than the other."""


def compare_outputs(rows, ours, theirs):
    expected = theirs.output(rows)
    try:
        output = ours.output(rows, expected.shape)
    except RuntimeError as error:
        raise WrongAnswer(str(error)) from error
    return difference(output, expected)


def difference(output, expected):
    """The largest, in units of the rms."""
    relative = float(np.abs(output - expected).max() / np.sqrt(np.mean(expected**2)))
    if not relative <= DIFFERENCE_MAX:
        raise WrongAnswer(f"outputs differ by {relative:.3g} of their rms")
    return relative


def batch(side, rows):
    """Runs that take about BATCH_SECONDS, by the least disturbed of a few."""
    side.run(rows, 1)
    seconds = []
    for _ in range(4):
        start = time.monotonic()
        side.run(rows, 1)
        seconds.append(time.monotonic() - start)
    return max(1, min(1000, round(BATCH_SECONDS / min(seconds))))


def shape_figures(peer, third, directory, shape_name, all_rows, rounds, failures):
    """Times all variants of a shape. Gives {rows: (us of q8_b32, bytes that it reads)}."""
    every = {}
    for variant in (*models.VARIANTS, models.SAME, models.EMPTY):
        theirs = Onnxruntime(directory, file_of(shape_name, variant))
        every[variant] = (Moed(peer, directory, shape_name, variant, theirs.ports), theirs)
    try:
        third = third and ggml.Ggml(third, directory, shape_name)
    except (OSError, RuntimeError) as error:
        failures.append(f"{shape_name}_q8_b32: ggml not timed: {error}")
        note(failures[-1])
        third = None
    found = {}
    for rows in all_rows:
        sides, counts, differences = {}, {}, []
        for variant, (ours, theirs) in every.items():
            ours.inputs(rows)
            theirs.inputs(rows, models.read_inputs(directory, shape_name, rows, variant))
            try:
                differences.append(compare_outputs(rows, ours, theirs))
            except WrongAnswer as error:
                failures.append(f"{shape_name}_{variant} with {rows} rows: not timed: {error}")
                note(failures[-1])
                continue
            sides[variant] = (ours, theirs)
            counts[variant] = [batch(side, rows) for side in (ours, theirs)]
        third_count = 0
        if third:
            try:
                third.inputs(rows)
                differences.append(compare_outputs(rows, third, every["q8_b32"][1]))
                third_count = batch(third, rows)
            except (OSError, RuntimeError, WrongAnswer) as error:
                failures.append(f"{shape_name}_q8_b32 with {rows} rows: ggml not timed: {error}")
                note(failures[-1])
        gc.disable()
        for turn in range(rounds):
            if third_count and turn % 2:
                third.run(rows, third_count)
            for variant, both in sides.items():
                if variant not in MAIN and turn % BACKGROUND_EVERY:
                    continue
                for i in (0, 1) if turn % 2 else (1, 0):
                    both[i].run(rows, counts[variant][i])
            if third_count and turn % 2 == 0:
                third.run(rows, third_count)
            peer.ask("bandwidth", DRAM_MIB, 1)
            peer.ask("bandwidth", CACHE_MIB, 4)
        gc.enable()
        worst = max(differences, default=0)
        note(f"{shape_name} rows {rows}: outputs differ by at most {worst:.2g} of their rms")
        timed = third if third_count else None
        q8_b32 = cell_figures(f"{shape_name}_rows{rows}", (shape_name, rows), sides, timed)
        if q8_b32:
            found[rows] = q8_b32
    return found


def cell_figures(cell, key, sides, third):
    shape, rows = models.SHAPES[key[0]], key[1]
    ours = {variant: moed_side.total(rows) for variant, (moed_side, _) in sides.items()}
    theirs = {variant: their_side.total(rows) for variant, (_, their_side) in sides.items()}
    runs = [f"{variant} {ours[variant][1]}/{theirs[variant][1]}" for variant in sides]
    note(f"{cell}: runs of moed/onnxruntime: {', '.join(runs)}")
    for variant in sides:
        figure(f"{cell}_{variant}_moed", ours[variant][0], "us")
        figure(f"{cell}_{variant}_onnxruntime", theirs[variant][0], "us")
        figure(f"{cell}_{variant}_ratio", theirs[variant][0] / ours[variant][0], "x")
    if "q8_b32" not in sides:
        return None
    time_us, _, read = ours["q8_b32"]
    if third:
        third_us, _ = third.total(rows)
        figure(f"{cell}_q8_b32_ggml", third_us, "us")
        figure(f"{cell}_q8_b32_ggml_ratio", third_us / time_us, "x")
    # A dense layer as large as one row's experts, and one as large as all of them.
    for variant in ("dense_act_nb8", "dense_all_nb8"):
        if variant in sides:
            figure(f"{cell}_{variant}_to_q8_b32_moed", ours[variant][0] / time_us, "x")
    # The same without what sparse reads more: every row goes to the same experts.
    if {"dense_act_nb8", models.SAME} <= sides.keys():
        ratio = ours["dense_act_nb8"][0] / ours[models.SAME][0]
        figure(f"{cell}_dense_act_nb8_to_{models.SAME}_moed", ratio, "x")
    operations = 6 * shape.hidden * shape.inter * shape.k * rows
    for variant in MAIN:
        if variant in sides:
            figure(f"{cell}_{variant}_rate_moed", operations / ours[variant][0] / 1e3, "GFLOP/s")
    figure(f"{cell}_q8_b32_bytes_read", read / 1e6, "MB")
    return time_us, read


def bandwidth_figures(peer, found):
    bandwidth = {}
    for name, mib in (("dram", DRAM_MIB), ("cache", CACHE_MIB)):
        answer = peer.ask("bandwidth", mib, 0)
        bandwidth[name] = int(answer["bytes_per_run"]) / int(answer["cpu_p10_ns"])
        # Not of the engine: no prefix.
        print(f"read_bandwidth_{name} = {bandwidth[name]:.2f} GB/s", flush=True)
    for shape_name, by_rows in found.items():
        for rows, (time_us, read) in by_rows.items():
            rate = read / time_us / 1e3
            figure(f"{shape_name}_rows{rows}_read", rate, "GB/s")
            # The small shape's experts fit into the last-level cache, all of them. Of the others a
            # part does, on a large machine: their share can exceed 100%.
            store = "cache" if shape_name == "s" else "dram"
            share = 100 * rate / bandwidth[store]
            figure(f"{shape_name}_rows{rows}_share_of_bandwidth", share, "%")


def main():
    arguments = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    arguments.add_argument("--peer", required=True)
    arguments.add_argument("--models", required=True, type=Path)
    arguments.add_argument("--ggml", metavar="PROGRAM", help="ggml.c, built")
    arguments.add_argument("--rounds", type=int, default=60)
    arguments.add_argument("--shapes", default=",".join(models.SHAPES))
    arguments.add_argument("--rows", default=",".join(map(str, models.ROWS)))
    given = arguments.parse_args()
    given.models = given.models.resolve()
    shapes = given.shapes.split(",")
    models.make(given.models, shapes)
    with contextlib.ExitStack() as stack:
        peer = stack.enter_context(moed.Peer(given.peer, "serve"))
        third = given.ggml and stack.enter_context(moed.Peer(given.ggml))
        kernel = peer.ask("kernel")["kernel"]
        note(f"onnxruntime {onnxruntime.__version__}; moed's kernel: {kernel}; one thread each; "
             f"us are the tenth percentile of CPU time; load average {moed.load_average()}")
        rows = [int(rows) for rows in given.rows.split(",")]
        failures = []
        found = {
            shape: shape_figures(peer, third, given.models, shape, rows, given.rounds, failures)
            for shape in shapes
        }
        bandwidth_figures(peer, found)
    note(f"load average {moed.load_average()}")
    if failures:
        raise SystemExit("\n".join(failures))


if __name__ == "__main__":
    main()
