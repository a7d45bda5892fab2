"""What the user asked for, word for word, and what can be said of it before any file is opened."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import field, frozen
from sfwire.limits import MAX_FRAMES, MAX_KEYFRAMES

from ..errors import UserError
from ..media import FitRule, check_name
from ..media.outputs import USUAL, Keeping

if TYPE_CHECKING:
    from .recipe import Recipe


class OrderError(UserError):
    """What was asked for cannot be done by any engine; one sentence with the remedy."""


@frozen
class Order:
    """What the user asked for, word for word."""

    start: Path
    end: Path
    out: Path
    further: tuple[tuple[int, Path], ...] = ()
    """Keyframes between start and end: (frame index, picture)."""
    prompt: str = ""
    negative_prompt: str = ""
    prompts: tuple[tuple[int, str], ...] = ()
    """(frame index, prompt) in order of time: it holds from that frame on."""
    num_frames: int = 33
    size: tuple[int, int] | None = None
    """(width, height), or None for the start picture's."""
    fit: FitRule = "crop"
    engine: str = "auto"
    """`auto`, an id, or a folder of converted weights; a server must have it among its own."""
    settings: Mapping[str, str] = field(factory=dict[str, str])
    """Values for the engine's parameters, as typed."""
    seed: int = 0
    fps: Fraction = Fraction(24)
    between_only: bool = False
    connect: bool = False
    keeping: Keeping = USUAL
    """How frames are kept in files."""
    keeps_recipe: bool = True
    """Recipes hold the prompts; some must not leave them in files."""
    again: Recipe | None = None
    """What this order was taken from: it is followed to the byte, or refused with what is another here."""


def check(order: Order) -> None:
    """What can be said before any file is opened."""
    check_name(order.out, order.keeping, order.fps)
    if order.num_frames < 3:
        raise OrderError(
            f"--frames {order.num_frames}: START and END count, so there is nothing between; 3 is the least"
        )
    if order.num_frames > MAX_FRAMES:
        raise OrderError(f"--frames {order.num_frames}: at most {MAX_FRAMES} are made at once; make it in parts")
    if len(order.further) > MAX_KEYFRAMES - 2:
        raise OrderError(f"--at: {len(order.further)} pictures between START and END; at most {MAX_KEYFRAMES - 2}")
    taken = {0: "START", order.num_frames - 1: "END"}
    for at, path in order.further:
        if at in taken:
            raise OrderError(f"--at {at}:{path}: frame {at} is {taken[at]} already; choose another frame")
        if not 0 < at < order.num_frames - 1:
            raise OrderError(f"--at {at}:{path}: is not between START and END; choose 1 to {order.num_frames - 2}")
        taken[at] = str(path)
    for (at, text), (next_at, _) in pairwise(order.prompts):
        if at == next_at:
            raise OrderError(f"--prompt-at {at}:{text}: another prompt begins at frame {at}; choose another frame")
