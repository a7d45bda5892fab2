"""docs/speed.md, made from files of figures: `python -m sfserver.bench.speed docs/figures/*.json > docs/speed.md`.

What nobody has measured stands there as such.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from ..engine.capacity import OVERHEAD_BYTES, weight_bytes
from ..engine.cards import GIB, USABLE, told, usable, way_on
from ..engine.presets import LONGLIVE, SELF_FORCING, SELF_FORCING_VACE, Preset
from ..room import CONVERTED_BYTES, TEXT_PARAMETERS
from .goals import GOALS
from .report import Measure, read_json

CARDS_GB = 6, 8, 10, 12, 16, 24, 80
SIZE = 832, 480
FRAMES = 81
TEXT_BYTES = CONVERTED_BYTES * TEXT_PARAMETERS
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

By arithmetic (`engine/cards.py`), for {FRAMES} frames at {SIZE[0]}x{SIZE[1]} between two keyframes, with {USABLE:.0%}
of the card's memory to be had: the desktop has the rest. `sfserver generate` goes by this where nothing else is asked
for, and says its line; so does a server under `auto`, at the size that its client has asked for.

What may be given up, the least first: decoding beside the next block (a little time), decoding the picture as a whole
(a quarter of the decoder's time, for overlaps), latents that each block looks back at (`window`: motion is forgotten
sooner; one latent is four frames), the model's own decoder for the small one (`tae`, which must have been fetched; a
little softness), then the size. With `--precision int8` (cards from RTX 30 on) or `fp8` (from RTX 40 on) the weights
take half. Of the two int8 is nearer to bf16: over 30 layers of random weights in which no rounding fades the flow
strays by under 2 % with it and by 5.5 % with fp8, of which rounding the weights alone is 3.9; only with all matrices
but the first of each feed-forward in more bits, 15 % of them in fp8, does it stay under 2.
"""
PROMPTS = """A new prompt is read by a text encoder of {text:.1f} GB: on the card for a moment where it fits beside the
weights, from {least} GB on, else in the machine's own memory, which must have that much free. A prompt that was used
before is on the disk.
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
    parts: list[str] = []
    for preset in (SELF_FORCING, SELF_FORCING_VACE, LONGLIVE):
        rows = []
        for gb in CARDS_GB:
            ways = (way_on(preset, usable(gb), *SIZE, FRAMES, eight_bit=eight_bit) for eight_bit in (False, True))
            rows.append([f"{gb} GB", *(_said(told(preset, way, gb, *SIZE), preset) for way in ways)])
        parts.append(f"### {preset.id}: {preset.title}\n\n{_table(['card', 'bf16', 'fp8 or int8'], rows)}")
    weights = weight_bytes(SELF_FORCING.dit, 2)
    least = next(gb for gb in CARDS_GB if weights + TEXT_BYTES + OVERHEAD_BYTES <= usable(gb))
    return "\n".join([*parts, PROMPTS.format(text=TEXT_BYTES / GIB, least=least)])


def _said(line: str, preset: Preset) -> str:
    """Of a line below its model's name."""
    return line.removeprefix(f"{preset.id} ").removeprefix("at ")


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |\n" for line in lines)


if __name__ == "__main__":
    sys.stdout.write(page([read_json(Path(name)) for name in sys.argv[1:]]))
