"""What the programs of the recipe share: folders, labels, numbers."""

from __future__ import annotations

import argparse
import os
import pathlib

HERE = pathlib.Path(__file__).resolve().parent
OUT = "out_of_scope"
WORDS = 32  # words of a sentence
SEED = 4
THREADS = int(os.environ.get("OMP_NUM_THREADS", 1))  # of each program: `run` has two going at a time
TINY = bool(os.environ.get("MOED_RECIPE_TINY"))  # little of everything, to see that it works

SLOTS = [
    "name", "area", "floor", "domain", "device_class", "state", "brightness", "color", "temperature",
    "percentage", "position", "volume_level", "volume_step", "fan_mode", "hours", "minutes", "seconds",
    "start_hours", "start_minutes", "start_seconds", "conversation_command", "item", "message",
    "search_query", "media_class",
]  # fmt: skip
TAGS = ["O"] + [f"{edge}-{slot}" for slot in SLOTS for edge in "BI"]


def parser(description: str) -> argparse.ArgumentParser:
    """The arguments that every program takes."""
    made = argparse.ArgumentParser(description=description)
    data = os.environ.get("MOED_DATA") or HERE.parents[1].parent / "shared/data"
    work = os.environ.get("MOED_RECIPE") or pathlib.Path.home() / ".cache/moed/recipe"
    made.add_argument("--data", type=pathlib.Path, default=pathlib.Path(data), help="folder with intent/")
    made.add_argument("--work", type=pathlib.Path, default=pathlib.Path(work), help="folder for work files")
    made.add_argument("--language", default="en")
    return made


if __name__ == "__main__":  # for `run`: where the work files are
    print(parser("Prints the folder of the work files.").parse_args().work)
