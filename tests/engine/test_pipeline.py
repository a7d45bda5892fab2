"""What leaves a device while it goes on. The device here is a number that says how late it is; nothing waits."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
import toy
from attrs import define, evolve
from sfwire.errors import ErrorCode, RequestError
from torch import Tensor

from sfserver.bench.paced import BLOCK_FRAMES, PASSES, PacedLine, run
from sfserver.engine.base import Chunk, Event, Frame, Job, Keyframe, Step, checked
from sfserver.engine.geometry import Block
from sfserver.engine.pipeline import InTurn, Mark, Pipeline

PASS_S = 0.07
BLACK = np.zeros((16, 16, 3), np.uint8)
JOB = Job(16, 16, 5 * BLOCK_FRAMES, (Keyframe(0, BLACK),))
BLOCK = torch.arange(BLOCK_FRAMES, dtype=torch.uint8)[:, None, None, None].expand(-1, 16, 16, 3)


@define
class Clock:
    now_s: float = 0.0

    def now(self) -> float:
        return self.now_s

    def wait(self, seconds: float) -> None:
        self.now_s += seconds


def drive(beside_s: float, in_turn: bool = False, job: Job = JOB) -> tuple[PacedLine, list[tuple[float, Event]]]:
    """The device, and every event with the moment at which it came."""
    clock = Clock()
    line = PacedLine(clock.now, clock.wait, beside_s)
    return line, [(clock.now(), event) for event in run(job, line, BLOCK, PASS_S, in_turn)]


@pytest.mark.parametrize("beside_s", [0.0, 0.5 * PASS_S, 4.5 * PASS_S])
def test_the_device_has_something_to_do_from_the_first_pass_to_the_last(beside_s: float) -> None:
    assert drive(beside_s)[0].idle_s == 0


def test_the_control_a_device_that_is_waited_for_stands_still_after_each_block() -> None:
    assert drive(0.06, in_turn=True)[0].idle_s == pytest.approx(4 * 0.06, abs=0.01)


def test_pictures_leave_as_soon_as_they_are_there_and_not_after_the_next_block() -> None:
    chunks = [at for at, event in drive(0.06)[1] if isinstance(event, Chunk)]
    there = [(i + 1) * PASSES * PASS_S + 0.06 for i in range(5)]
    assert chunks == pytest.approx(there, abs=0.003)


def test_frames_come_once_and_in_order_and_those_that_are_not_wanted_do_not() -> None:
    for job in (JOB, evolve(JOB, resume_from=17), evolve(JOB, num_frames=50)):
        frames = toy.frames(event for _, event in drive(0.1, job=job)[1])
        assert [frame.index for frame in frames] == job.wanted()
        assert all((frame.image == frame.index % BLOCK_FRAMES).all() for frame in frames)


def test_the_host_is_never_more_than_one_pass_ahead_of_the_device() -> None:
    """A Step comes when the pass before is over: a cancel then meets one pass, and what it has begun beside it."""
    steps = [at for at, event in drive(0.06)[1] if isinstance(event, Step)]
    assert steps == pytest.approx([max(0, i) * PASS_S for i in range(len(steps))], abs=0.1 * PASS_S + PASS_S)
    for i, at in enumerate(steps):
        assert (i + 1) * PASS_S - at <= 2 * PASS_S + 1e-9


def test_no_more_than_two_blocks_of_pictures_exist_at_once() -> None:
    class Counting(PacedLine):
        def fetch(self, tensors: Sequence[Tensor]) -> tuple[list[Tensor], Mark]:
            pictures, sound = tensors
            mine = pictures.clone()
            weakref.finalize(mine, alive.discard, len(most))
            alive.add(len(most))
            most.append(len(alive))
            return [mine, sound], super().fetch(tensors)[1]

    clock, alive, most = Clock(), set[int](), list[int]()
    for _ in run(JOB, Counting(clock.now, clock.wait, 4.5 * PASS_S), BLOCK, PASS_S, in_turn=False):
        pass
    assert len(most) == 5
    assert max(most) <= 2
    assert not alive


@pytest.mark.parametrize("sick", ["the model", "the VAE's decoder"])
def test_pictures_that_mean_nothing_are_an_error_with_a_name(sick: str) -> None:
    fine, nan = torch.ones(3), torch.tensor([1.0, float("nan")])
    latents, pixels = (nan, fine) if sick == "the model" else (fine, nan)
    pipeline = Pipeline(InTurn())
    pipeline.add(Block(1, 3, 3), 9, latents, pixels, BLOCK)
    with pytest.raises(RequestError, match=f"{sick} produced NaN or infinity in latents 3 to 5") as caught:
        list(pipeline.rest())
    assert caught.value.code is ErrorCode.NOT_FINITE
    pipeline.add(Block(1, 3, 3), 9, fine, fine, BLOCK)
    assert [leaving.first for leaving in pipeline.rest()] == [9]


class Late(InTurn):
    """A device whose copies hold nothing but zeros until they have been looked at `looks` times."""

    def __init__(self, looks: int) -> None:
        self.looks, self.joined = looks, 0

    def fetch(self, tensors: Sequence[Tensor]) -> tuple[list[Tensor], Mark]:
        copies = [torch.zeros_like(tensor) for tensor in tensors]
        left = self.looks

        class Landing:
            def reached(self) -> bool:
                nonlocal left
                left -= 1
                if left < 0:
                    for copy, tensor in zip(copies, tensors, strict=True):
                        copy.copy_(tensor)
                return left < 0

        return copies, Landing()

    def join(self) -> None:
        self.joined += 1


def late(looks: int) -> tuple[Any, Late]:
    engine, line = toy.engine(), Late(looks)
    engine._line = line
    return engine, line


QUICK = toy.job(13, (0, 12), params={"strategy": "anchor"}, resume_from=3)


@pytest.fixture(scope="module")
def in_turn() -> list[Frame]:
    return toy.frames(toy.run(QUICK))


@pytest.mark.parametrize("looks", [1, 3, 50])
def test_however_late_pictures_arrive_a_clip_has_the_same_bytes(looks: int, in_turn: list[Frame]) -> None:
    lately = toy.frames(toy.run(QUICK, late(looks)[0]))
    assert [f.index for f in lately] == [f.index for f in in_turn] == QUICK.wanted()
    assert all(np.array_equal(a.image, b.image) for a, b in zip(lately, in_turn, strict=True))


def test_a_late_block_leaves_while_the_next_one_is_made() -> None:
    events = toy.run(toy.job(params={"strategy": "anchor"}), late(1)[0])
    first = next(i for i, event in enumerate(events) if isinstance(event, Chunk))
    assert isinstance(events[first - 1], Step)
    assert any(isinstance(event, Step) and event.stage == "denoising" for event in events[first:])


def test_a_clip_that_is_closed_in_the_middle_leaves_nothing_running_beside_the_next() -> None:
    engine, line = late(10**6)
    events = engine.open(checked(toy.job(17, (0, 16), params={"strategy": "anchor"}), engine.info))
    while getattr(next(events), "stage", "") != "remembering":
        pass
    assert line.joined == 0
    events.close()
    assert line.joined == 1
    line.looks = 0
    assert [f.index for f in toy.frames(toy.run(QUICK, engine))] == QUICK.wanted()
