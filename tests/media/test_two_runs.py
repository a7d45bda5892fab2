"""Two runs into one place: the second is told, whichever file or folder it is."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from sfserver.media import MediaError
from sfserver.media.outputs import ClipShape, Outputs

SHAPE = ClipShape(32, 32, 3, (0, 2), Fraction(24))
PICTURE = np.zeros((32, 32, 3), np.uint8)


@pytest.mark.parametrize("name", ["clip", "clip.mp4"])
def test_a_second_run_into_the_same_place_is_refused_and_harms_nothing(tmp_path: Path, name: str) -> None:
    first = Outputs(tmp_path / name, SHAPE)
    with pytest.raises(MediaError, match="another run is writing there"):
        Outputs(tmp_path / name, SHAPE)
    for index in range(3):
        first.write(index, PICTURE)
    first.close("title", "subtitle")
    assert (tmp_path / name).exists()
    assert not list(tmp_path.rglob("*.lock"))


@pytest.mark.parametrize("name", ["clip", "clip.mp4"])
def test_one_that_was_broken_off_lets_go(tmp_path: Path, name: str) -> None:
    Outputs(tmp_path / name, SHAPE).abort()
    again = Outputs(tmp_path / name, SHAPE)
    again.write(0, PICTURE)
    again.close("title", "subtitle")


def test_the_control_two_places_are_two_runs(tmp_path: Path) -> None:
    both = [Outputs(tmp_path / name, SHAPE) for name in ("a", "b", "a.mp4", "b.mp4")]
    for one in both:
        one.abort()
    assert not list(tmp_path.iterdir())
