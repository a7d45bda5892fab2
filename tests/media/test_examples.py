"""The pictures of `examples/`: small, alike in size, and what their script draws."""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np
import pytest

from sfserver.media import read_picture

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.parametrize("pair", ["drawn", "push", "toy"])
def test_pair_is_small_and_can_be_used_as_it_is(pair: str) -> None:
    for end in ("start", "end"):
        path = EXAMPLES / f"{pair}_{end}.png"
        loaded = read_picture(path)
        assert loaded.image.shape == (480, 832, 3)
        assert loaded.notes == ()
        assert path.stat().st_size < 400_000


@pytest.mark.parametrize("script_name", ["make_drawn.py", "make_push.py"])
def test_a_drawn_pair_is_what_its_script_draws(script_name: str) -> None:
    """Up to rounding, in which versions of Pillow may differ."""
    script = runpy.run_path(str(EXAMPLES / script_name))
    for name, pose in script["POSES"].items():
        drawn = np.asarray(script["draw"](pose)).astype(int)
        assert np.abs(drawn - read_picture(EXAMPLES / f"{name}.png").image).mean() < 0.5
