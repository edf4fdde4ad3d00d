"""What loading and running a model costs in time and memory, and which of its pages come in.

    python memory.py --peer PROGRAM --models DIRECTORY

The model is the 50 MB one, q8_b32 of shape m. Every figure is of a fresh process.
"""

import argparse
import ctypes
import mmap
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import models
import moed
from moed import figure, note

SHAPE, VARIANT = "m", "q8_b32"
NAME = f"{SHAPE}_{VARIANT}"
LOADS = 7
MIB = 1 << 20


def evict(path):
    """Takes a file out of the page cache, if no process maps it."""
    with path.open("rb") as file:
        # Pages that are not yet on the disk stay.
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def cached_bytes(path):
    """Bytes of a file that are in the page cache, as mincore(2) says."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int,
                          ctypes.c_int, ctypes.c_long]
    libc.mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p]
    libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    size = path.stat().st_size
    with path.open("rb") as file:
        address = libc.mmap(None, size, mmap.PROT_READ, mmap.MAP_SHARED, file.fileno(), 0)
    if address == ctypes.c_void_p(-1).value:
        raise OSError(ctypes.get_errno(), "mmap")
    pages = (ctypes.c_ubyte * (-(-size // mmap.PAGESIZE)))()
    status = libc.mincore(address, size, pages)
    libc.munmap(address, size)
    if status != 0:
        raise OSError(ctypes.get_errno(), "mincore")
    return sum(page & 1 for page in pages) * mmap.PAGESIZE


def read_ahead(path):
    """How far the kernel reads ahead on the disk that a file lies on."""
    device = path.stat().st_dev
    setting = Path(f"/sys/class/bdi/{os.major(device)}:{os.minor(device)}/read_ahead_kb")
    return f"{setting.read_text().strip()} KiB" if setting.exists() else "unknown"


def load_figures(program, directory):
    walls, added = [], []
    for _ in range(LOADS):
        with moed.Peer(program, "serve") as peer:
            loaded = moed.load_model(peer, directory, NAME)
        walls.append(int(loaded["wall_ns"]) / 1e6)
        added.append(int(loaded["anonymous_kib"]) / 1024)
    file = directory / f"{NAME}.bin"
    figure(f"load_{NAME}_file", file.stat().st_size / 1e6, "MB")
    figure(f"load_{NAME}_moed", statistics.median(walls), "ms")
    figure(f"load_{NAME}_anonymous_moed", max(added), "MiB")
    theirs = [
        subprocess.run(
            [sys.executable, __file__, "--onnxruntime", directory / f"{NAME}.onnx"],
            check=True, capture_output=True, text=True,
        ).stdout.split()
        for _ in range(3)
    ]
    wall, kib = (statistics.median(float(line[i]) for line in theirs) for i in (0, 1))
    figure(f"load_{NAME}_onnxruntime", wall, "ms")
    figure(f"load_{NAME}_anonymous_onnxruntime", kib / 1024, "MiB")


def load_onnxruntime(path):
    """In a process of its own: prints milliseconds and KiB of anonymous memory."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    before, start = moed.anonymous_kib(), time.monotonic()
    session = onnxruntime.InferenceSession(path, options, ["CPUExecutionProvider"])
    print((time.monotonic() - start) * 1e3, moed.anonymous_kib() - before)
    del session


def page_figures(program, directory):
    """One row through a model of which nothing is in memory."""
    file = directory / f"{NAME}.bin"
    evict(file)
    left = cached_bytes(file)
    if left:
        note(f"{left / MIB:.1f} MiB of {file.name} stay in the page cache: another process maps "
             "it, or it lies on tmpfs")
    ports = (models.X, models.ROUTER)
    with moed.Peer(program, "serve") as peer:
        loaded = moed.load_model(peer, directory, NAME)
        figure(f"load_{NAME}_cold_moed", int(loaded["wall_ns"]) / 1e6, "ms")
        mapping = peer.ask("pages", file)
        figure("pages_mapping", int(mapping["size_kib"]) / 1024, "MiB")
        figure("pages_mapping_resident_after_load", int(mapping["resident_kib"]) / 1024, "MiB")
        figure("pages_file_cached_after_load", cached_bytes(file) / MIB, "MiB")
        inputs = [models.input_path(directory, SHAPE, 1, port) for port in ports]
        peer.ask("inputs", NAME, 1, *inputs)
        before = int(peer.ask("memory")["anonymous_kib"])
        report = peer.ask("report", NAME, 1, 0)
        after = int(peer.ask("memory")["anonymous_kib"])
        resident = int(peer.ask("pages", file)["resident_kib"]) / 1024
        chosen = int(report["bytes"]) / MIB
        note(f"experts that ran, and for how many rows: {report['experts']}")
        figure("pages_chosen_experts", chosen, "MiB")
        figure("pages_mapping_resident_after_run", resident, "MiB")
        note(f"the page cache holds what was read ahead, too: {read_ahead(file)} at a time here")
        figure("pages_file_cached_after_run", cached_bytes(file) / MIB, "MiB")
        figure("pages_resident_to_chosen", resident / chosen, "x")
        figure("run_anonymous_moed", (after - before) / 1024, "MiB")


def main():
    if sys.argv[1:2] == ["--onnxruntime"]:
        return load_onnxruntime(sys.argv[2])
    arguments = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    arguments.add_argument("--peer", required=True)
    arguments.add_argument("--models", required=True, type=Path)
    given = arguments.parse_args()
    given.models = given.models.resolve()
    models.make(given.models, [SHAPE], [VARIANT])
    load_figures(given.peer, given.models)
    page_figures(given.peer, given.models)


if __name__ == "__main__":
    main()
