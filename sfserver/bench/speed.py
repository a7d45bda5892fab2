"""docs/speed.md, made from files of figures: `python -m sfserver.bench.speed docs/figures/*.json > docs/speed.md`.

What nobody has measured stands there as such.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from ..engine.cards import told, usable, way_on
from ..engine.presets import LONGLIVE, SELF_FORCING, SELF_FORCING_VACE
from .goals import GOALS
from .report import Measure, read_json

CARDS_GB = 6, 8, 10, 12, 16, 24, 80
SIZE = 832, 480
FRAMES = 81
UNMEASURED = "not measured"
Figures = tuple[dict[str, str], list[Measure]]
"""Facts about a machine, and what was measured on it."""

HEAD = """# Speed and memory

Made by `make speed` from the files in `docs/figures/`, which `sfserver bench --out` writes; do not edit it by hand.
"""
ON_A_GPU = """## On a GPU

With random weights, by `sfserver bench --gpu --out docs/figures/CARD.json`. The room is what FLOPs and bytes of the
work leave, whatever the software.
"""
ON_EVERY_CARD = f"""## What each card can do

By arithmetic (`engine/cards.py`), for {FRAMES} frames at {SIZE[0]}x{SIZE[1]} between two keyframes, with 93 %
of the card's memory to be had. `auto` goes by the same ways. The small decoder, `tae`, must have been fetched.
"""
ELSEWHERE = """## Without a GPU

Ratios to a yardstick of the same run, on the machine named above each table.
"""


def page(files: Sequence[Figures]) -> str:
    """The whole page, as Markdown."""
    on_gpu = [one for one in files if "card" in one[0]]
    elsewhere = [one for one in files if "card" not in one[0]]
    parts = [HEAD, ON_A_GPU, _goals(on_gpu), *map(_figures, on_gpu), ON_EVERY_CARD, _cards()]
    parts += [ELSEWHERE, *map(_figures, elsewhere)] if elsewhere else []
    return "\n".join(parts).rstrip() + "\n"


def _goals(files: Sequence[Figures]) -> str:
    cards = [facts["card"] for facts, _ in files] or ["measured"]
    rows = []
    for goal in GOALS:
        found = [next((m for m in measures if m.goal == goal.id), None) for _, measures in files] or [None]
        values = [f"{m.value:.3g} {m.unit}" if m else UNMEASURED for m in found]
        rows.append([goal.id, goal.what, goal.target, goal.cap, *values])
    return _table(["", "goal", "target", "room", *cards], rows)


def _figures(one: Figures) -> str:
    facts, measures = one
    machine = "; ".join(f"{name}: {value}" for name, value in facts.items())
    rows = []
    for m in measures:
        wanted = "" if m.target is None else f"{'>=' if m.better == 'high' else '<='} {m.target:g}"
        rows.append([m.name, f"{m.value:.3g} {m.unit}".rstrip(), wanted, m.how])
    return f"{machine}\n\n{_table(['', 'measured', 'target', ''], rows)}"


def _cards() -> str:
    rows = []
    for preset in (SELF_FORCING, SELF_FORCING_VACE, LONGLIVE):
        for gb in CARDS_GB:
            ways = (way_on(preset, usable(gb), *SIZE, FRAMES, eight_bit=eight_bit) for eight_bit in (False, True))
            rows.append([f"{gb} GB", *(told(preset, way, gb, *SIZE) for way in ways)])
    return _table(["card", "in bf16", "with --precision fp8 or int8"], rows)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |\n" for line in lines)


if __name__ == "__main__":
    sys.stdout.write(page([read_json(Path(name)) for name in sys.argv[1:]]))
