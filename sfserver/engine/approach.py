"""What moves around a keyframe that stands alone: in-betweens of the draft engine for the rest of its latent.

A latent is four frames. With one picture given, the other three are copies of it, which tells the model that the clip
stands still there, or frames on the way from the keyframe before and to the one after it, as the draft engine sees
that way: a picture that arrives.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from itertools import pairwise

from .base import Chunk, Engine, Job, Keyframe, Step, checked
from .conditioning import STAGE
from .geometry import frames_of, latent_of


def drafted(draft: Engine, keyframes: Sequence[Keyframe]) -> Generator[Step, None, dict[int, Keyframe]]:
    """Frames by position: those that share a latent with a keyframe, and the one before each such latent.

    Between keyframes alone: before the first and after the last there is no way to see. Raises RequestError as the
    draft engine does.
    """
    made: dict[int, Keyframe] = {}
    for before, after in pairwise(keyframes):
        for run in _runs(before.at, after.at):
            yield from _make(draft, before, after, run, made)
    return made


def _runs(before: int, after: int) -> Iterator[range]:
    """Frames between two keyframes that are wanted, as at most two runs: behind the one and before the other."""
    first, last = frames_of(latent_of(before)).stop, frames_of(latent_of(after)).start - 1
    if last <= first:
        yield range(before + 1, after)
    else:
        yield range(before + 1, first)
        yield range(last, after)


def _make(
    draft: Engine, before: Keyframe, after: Keyframe, run: range, made: dict[int, Keyframe]
) -> Generator[Step, None, None]:
    if not run:
        return
    height, width = before.image.shape[:2]
    pair = Keyframe(0, before.image), Keyframe(after.at - before.at, after.image)
    clip = Job(width, height, pair[1].at + 1, pair, resume_from=run.start - before.at)
    with closing(draft.open(checked(clip, draft.info))) as events:
        for event in events:
            if isinstance(event, Chunk):
                made |= {before.at + f.index: Keyframe(before.at + f.index, f.image) for f in event.frames}
                yield Step(STAGE, 0, 0)
                if run[-1] in made:
                    return
