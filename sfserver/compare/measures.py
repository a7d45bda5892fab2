"""What can be measured of a clip between two keyframes without knowing how it should look.

A clip is [T, H, W, 3] uint8, both keyframes included. Differences are means over all values, where 1 is from black to
white. None of these is a mark: a still clip has no flicker.
"""

from __future__ import annotations

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

Clip = NDArray[np.uint8]
CELL_PX = 32
"""What is averaged where colours and not edges are compared."""
END_FRAMES = 4
"""Of one latent: what stands still where a latent is a still."""


@frozen
class Measured:
    """Of one clip."""

    end_error: float
    """The last in-between against the keyframe that follows it."""
    seam: float
    """How far colours jump at the two keyframes, beyond what they do from frame to frame inside."""
    flicker: float
    """How far colours leave the line between the frame before and the frame after; the middle one of all frames."""
    motion_at_start: float
    """Change from frame to frame within the first four in-betweens, over that of the middle of the clip: 1 is even."""
    motion_at_end: float
    """The same of the last four. 0 stands still."""


def measure(clip: Clip) -> Measured:
    """Of a clip of at least three frames."""
    frames = clip.astype(np.float32) / 255
    steps = np.abs(np.diff(frames, axis=0)).mean(axis=(1, 2, 3))  # T - 1
    colours = np.stack([_cells(frame) for frame in frames])
    colour_steps = np.abs(np.diff(colours, axis=0)).mean(axis=(1, 2, 3))
    bends = np.abs(colours[1:-1] - (colours[:-2] + colours[2:]) / 2).mean(axis=(1, 2, 3))
    inside = steps[1:-1]
    usual = float(np.median(inside)) if len(inside) else 0.0
    usual_colour = float(np.median(colour_steps[1:-1])) if len(inside) else 0.0
    jump = float(max(colour_steps[0], colour_steps[-1]))
    return Measured(
        end_error=float(steps[-1]),
        seam=max(0.0, jump - usual_colour),
        flicker=float(np.median(bends)),
        motion_at_start=_share(inside[: END_FRAMES - 1], usual),
        motion_at_end=_share(inside[-(END_FRAMES - 1) :], usual),
    )


def _share(steps: NDArray[np.float32], usual: float) -> float:
    return float(steps.mean()) / usual if len(steps) and usual > 0 else 0.0


def _cells(frame: NDArray[np.float32]) -> NDArray[np.float32]:
    """[H, W, 3] averaged over cells, what is left over at the edges left out where there is more than one."""
    rows, columns = (max(1, side // CELL_PX) for side in frame.shape[:2])
    height, width = (min(CELL_PX, side) for side in frame.shape[:2])
    whole = frame[: rows * height, : columns * width]
    return whole.reshape(rows, height, columns, width, 3).mean(axis=(1, 3))
