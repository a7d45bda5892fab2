"""Mutated messages inside one process: half of them led by coverage where atheris is installed, the others seeded."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import random
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .figures import Figures, Plan
from .mutate import mutated
from .target import Target

A_TURN = 1000
ROOT = Path(__file__).parents[2]


def run(plan: Plan) -> Iterator[None]:
    """Each case is a turn of a thousand messages."""
    led = _fuzz(plan) if importlib.util.find_spec("atheris") else None
    target = Target()
    for _, rng in plan.cases():
        for _ in range(A_TURN):
            target = _one(plan.figures, target, rng)
        plan.figures.counts["messages"] += A_TURN
        yield
    if led is not None:
        yield from _follow(plan, led)
    for kind, count in target.seen.items():
        plan.figures.counts[f"read as {kind}"] += count


def _one(figures: Figures, target: Target, rng: random.Random) -> Target:
    to_server = rng.random() < 0.7
    parts = mutated(rng, to_server)
    try:
        target.hear(to_server, parts)
    except Exception as error:  # what it is, is what is to be found out
        where = traceback.extract_tb(error.__traceback__)[-1]
        way = "to the server" if to_server else "to the client"
        what = f"{type(error).__name__} at {Path(where.filename).name}:{where.lineno}: {error}"[:200]
        figures.find("exceptions", what, example=f"{parts[0][:150].hex()} and {len(parts) - 1} buffers {way}")
        return Target(target.seen)
    return target


def _fuzz(plan: Plan) -> subprocess.Popen[bytes]:
    """As many messages again, in a process beside this one."""
    folder = plan.folder / "fuzz"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "fuzz.json").unlink(missing_ok=True)
    count = (plan.last - plan.figures.done) * A_TURN
    command = [sys.executable, "-m", "tests.torture.fuzz", str(count), str(plan.figures.seed), str(folder)]
    with (folder / "fuzz.log").open("wb") as log:
        return subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)


def _follow(plan: Plan, led: subprocess.Popen[bytes]) -> Iterator[None]:
    while led.poll() is None:
        time.sleep(0.2)
        yield
    body: dict[str, Any] = {"done": 0, "found": []}
    with contextlib.suppress(OSError, ValueError):
        body = json.loads((plan.folder / "fuzz" / "fuzz.json").read_text())
    plan.figures.counts["messages"] += body["done"]
    plan.figures.counts["led by coverage"] += body["done"]
    for kind, count in body.get("seen", {}).items():
        plan.figures.counts[f"read as {kind}"] += count
    for what, example in body["found"]:
        plan.figures.find("exceptions", what, example=f"{example} as bytes of fuzz.py")
    if not body["done"] or led.returncode:
        log = (plan.folder / "fuzz" / "fuzz.log").read_text("utf-8", "replace")
        plan.figures.find("broken", f"atheris ended with {led.returncode}: {log[-400:]}")
