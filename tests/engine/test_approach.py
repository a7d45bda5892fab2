"""What the model is shown around a keyframe that stands alone: copies of it, or the draft engine's way there."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import attrs
import numpy as np
import pytest
import torch
import toy

from sfserver.config import ServerConfig
from sfserver.engine import draft
from sfserver.engine.approach import drafted
from sfserver.engine.base import Chunk, Event, Frame, Job, Keyframe
from sfserver.engine.conditioning import encode_stills, to_pixels


class CountingDraft:
    """Frames that say where they are; remembers which were made."""

    def __init__(self) -> None:
        self.info = draft.describe(ServerConfig())
        self.made: list[int] = []
        self.closed = 0

    def open(self, job: Job) -> Generator[Event, None, None]:
        try:
            for at in job.wanted():
                self.made.append(at)
                yield Chunk((Frame(at, np.full_like(job.keyframes[0].image, 10 * at)),))
        finally:
            self.closed += 1


def finished(run: Generator[Any, None, Any]) -> Any:
    while True:
        try:
            next(run)
        except StopIteration as end:
            return end.value


@pytest.mark.parametrize(
    ("at", "expected"),
    [
        ((0, 24), [20, 21, 22, 23]),
        ((0, 17), [16]),
        ((0, 3), [1, 2]),
        ((0, 6, 24), [4, 5, 7, 8, 20, 21, 22, 23]),
        ((2, 9), [3, 4, 8]),
        ((0,), []),
        ((0, 1), []),
    ],
)
def test_frames_are_made_that_share_a_latent_with_a_keyframe_and_the_one_before(
    at: tuple[int, ...], expected: list[int]
) -> None:
    engine = CountingDraft()
    frames = finished(drafted(engine, [Keyframe(a, toy.picture(a)) for a in at]))
    assert sorted(frames) == expected
    assert len(engine.made) == len(expected), "and no other"
    assert all(frame.at == place for place, frame in frames.items())
    assert engine.closed == (2 if len(at) == 3 else 1 if expected else 0) + (at == (0, 6, 24)) + (at == (2, 9))


def test_frames_lie_where_they_are_in_the_clip_and_not_in_the_gap() -> None:
    frames = finished(drafted(CountingDraft(), [Keyframe(8, toy.picture(1)), Keyframe(24, toy.picture(2))]))
    assert {at: int(frame.image[0, 0, 0]) for at, frame in frames.items()} == {
        at: 10 * (at - 8) for at in range(20, 24)
    }


def test_the_latent_of_a_keyframe_is_that_of_the_frames_around_it() -> None:
    """Encoded after the one before them, as the VAE wants it; only the keyframe counts as given."""
    frames = {at: Keyframe(at, toy.picture(at)) for at in range(4, 9)}
    vae = toy.weights().vae
    (shown,) = finished(encode_stills(vae, [frames[8]], "cpu", frames))
    expected = vae.encode(torch.cat([to_pixels(frame.image, "cpu") for frame in frames.values()], dim=1))
    assert [k.at for k in shown.keyframes] == [8]
    assert torch.equal(shown.latent, expected[:, -1:])
    (still,) = finished(encode_stills(vae, [frames[8]], "cpu"))
    assert (shown.latent - still.latent).abs().max() > 0.01, "the control"
    assert not shown.is_whole(9)


def run(**params: Any) -> dict[int, Any]:
    engine = toy.engine(loaded=attrs.evolve(toy.weights(), draft=CountingDraft))
    job = toy.job(13, (0, 12), params={"seam": False, **params})
    return {frame.index: frame.image for frame in toy.frames(toy.run(job, engine))}


@pytest.mark.parametrize("strategy", ["anchor", "chunk"])
def test_what_moves_around_an_anchored_keyframe_steers_the_clip_and_is_not_delivered(strategy: str) -> None:
    still, moving = run(strategy=strategy), run(strategy=strategy, anchor_shows="draft")
    assert list(still) == list(moving) == list(range(1, 12))
    same = all(np.array_equal(still[at], moving[at]) for at in still)
    assert same == (strategy == "chunk"), "a strategy without an anchor has no use for it"
    assert not any((image == 10 * at).all() for at, image in moving.items())


def test_the_draft_engine_itself_can_be_asked() -> None:
    pair = [Keyframe(0, toy.picture(1)), Keyframe(5, toy.picture(2))]
    frames = finished(drafted(draft.load(ServerConfig(device="cpu")), pair))
    assert sorted(frames) == [4]
    assert frames[4].image.shape == pair[0].image.shape
