"""Alpha with a Wan model: its own colours, the draft engine's outline, frame by frame as they leave, and said so."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from contextlib import closing
from functools import cache
from typing import Any

import numpy as np
import pytest
import toy
from attrs import evolve
from sfwire.errors import RequestError

from sfserver import samples
from sfserver.config import ServerConfig
from sfserver.engine import capacity, draft, matte, wan
from sfserver.engine.base import Chunk, Engine, Event, Frame, Job, Keyframe, Step, checked
from sfserver.engine.flow import FlowEngine
from sfserver.model.config import WAN_1_3B
from sfserver.samples import GREY, RGB8, Form, Picture, conformed, form_of

QUICK = {"strategy": "chunk+anchor", "seam": False}
FRAMES = 13
INK, UNSEEN = (200, 60, 40), (0, 255, 0)


def shape(x: float) -> Picture:
    """RGBA8: a disc with a soft edge on nothing; of what is transparent the colour is another."""
    across = np.hypot(*np.meshgrid(np.arange(toy.WIDTH) - x, np.arange(toy.HEIGHT) - toy.HEIGHT / 2))
    alpha = np.clip((10 - across) / 3 + 0.5, 0, 1)
    picture = np.empty((toy.HEIGHT, toy.WIDTH, 4), np.uint8)
    picture[..., :3] = np.where(alpha[..., None] > 0, INK, UNSEEN)
    picture[..., 3] = np.rint(255 * alpha)
    return picture


def job(*at: int, opaque: bool = False, **more: Any) -> Job:
    pictures = [shape(16 + place) for place in at or (0, FRAMES - 1)]
    for picture in pictures if opaque else ():
        picture[..., 3] = 255
    keyframes = tuple(Keyframe(place, picture) for place, picture in zip(at or (0, FRAMES - 1), pictures, strict=True))
    return toy.job(FRAMES, keyframes=keyframes, params=QUICK, **more)


@cache
def the_draft() -> Engine:
    return draft.load(ServerConfig(device="cpu"))


def drafted(request: Job) -> dict[int, Picture]:
    clip = Job(request.width, request.height, request.num_frames, request.keyframes, resume_from=request.resume_from)
    return {f.index: f.image for f in toy.frames(the_draft().open(checked(clip, the_draft().info)))}


@pytest.mark.parametrize("at", [(0, 12), (0, 5, 12), (3, 9)])
def test_colours_are_the_models_and_alpha_is_the_draft_engines(at: tuple[int, ...]) -> None:
    request = job(*at)
    made = toy.frames(toy.run(request))
    plain = toy.frames(toy.run(matte.over_grey(request)))
    alphas = drafted(request)
    assert [frame.index for frame in made] == [frame.index for frame in plain] == request.wanted()
    for frame, of_model in zip(made, plain, strict=True):
        assert form_of(frame.image) == Form(4, 8)
        assert np.array_equal(frame.image[..., 3], alphas[frame.index][..., 3])
        solid = frame.image[..., 3] == 255
        assert solid.any()
        assert np.array_equal(frame.image[solid][:, :3], of_model.image[solid])


def test_a_clip_that_is_resumed_has_the_same_alpha() -> None:
    whole = {f.index: f.image for f in toy.frames(toy.run(job()))}
    rest = toy.frames(toy.run(job(resume_from=7)))
    assert [frame.index for frame in rest] == [7, 8, 9, 10, 11]
    for frame in rest:
        assert np.array_equal(frame.image, whole[frame.index])


def lines(events: Iterable[Event]) -> list[str]:
    return [event.stage for event in events if isinstance(event, Step) and event.stage == matte.SAID]


def test_it_is_said_where_it_is_so_and_nowhere_else() -> None:
    assert lines(toy.run(job())) == [matte.SAID]
    assert lines(toy.run(job(0, 5, 12))) == [matte.SAID] * 2, "once for each gap"
    assert len(matte.SAID) <= 80
    assert not lines(toy.run(job(opaque=True)))
    assert not lines(toy.run(matte.over_grey(job())))
    assert "alpha" in toy.engine().info.summary


def test_a_draft_engine_with_other_pixels_is_another_version_of_the_models() -> None:
    """Where this fails: raise wan.VERSION, for a recipe names one engine, and write down the new pair."""
    assert (wan.VERSION, draft.VERSION) == ("5", "rife-4.25+4")


# On a model whose frames are known


class Over:
    """Lays a disc that moves as the keyframes' over grey, two frames at a time: what a perfect model would make."""

    def __init__(self) -> None:
        self.out = 0
        self.closed = False

    def frames(self, request: Job) -> Generator[Event, None, None]:
        try:
            wanted = request.wanted()
            for at in range(0, len(wanted), 2):
                pair = tuple(Frame(i, conformed(shape(16 + i), RGB8)) for i in wanted[at : at + 2])
                self.out += len(pair)
                yield Step("denoising", at, len(wanted))
                yield Chunk(pair)
        finally:
            self.closed = True


class Counting:
    """The draft engine, whose frames are counted."""

    def __init__(self) -> None:
        self.info = the_draft().info
        self.made = 0
        self.closed = False

    def open(self, job: Job) -> Generator[Event, None, None]:
        try:
            for event in the_draft().open(job):
                self.made += isinstance(event, Chunk)
                yield event
        finally:
            self.closed = True


def fringe(picture: Picture) -> float:
    """How far its colours, over black and over white, are from ink under the same alpha: grey would show."""
    alpha = picture[..., 3:] / 255
    return max(
        float(
            np.abs(
                (picture[..., :3] * alpha + 255 * grey * (1 - alpha))
                - (np.array(INK) * alpha + 255 * grey * (1 - alpha))
            ).max()
        )
        for grey in (0, 1)
    )


def test_grey_is_taken_out_of_edges_that_shine_through() -> None:
    there = shape(20)
    assert fringe(matte.off_grey(conformed(there, RGB8), there[..., 3])) <= 2
    with_grey = np.concatenate((conformed(there, RGB8), there[..., 3:]), axis=2)
    assert fringe(with_grey) > 20, "the control"


def test_over_the_grey_that_it_was_made_on_a_frame_is_the_models_again() -> None:
    made = np.random.default_rng(1).integers(0, 256, (32, 48, 3), np.uint8)
    alpha = np.full((32, 48), 128, np.uint8)
    back = conformed(matte.off_grey(made, alpha), RGB8).astype(int)
    reached = np.abs(made / 255 - GREY) < GREY * 128 / 255  # further from grey half of a colour cannot lead
    assert np.abs(back - made)[reached].max() <= 1
    assert (matte.off_grey(made, np.zeros_like(alpha)) == 0).all(), "nothing is black nothing"


def test_no_frame_waits_for_the_alpha_of_a_later_one() -> None:
    model, counting, request = Over(), Counting(), job()
    seen: list[tuple[int, int]] = []
    for event in matte.matted(model.frames(request), request, lambda: counting):
        if isinstance(event, Chunk):
            seen.append((model.out, counting.made))
    assert seen == [(2, 2), (4, 4), (6, 6), (8, 8), (10, 10), (11, 11)]
    assert (model.closed, counting.closed) == (True, True)


def test_a_clip_that_is_closed_closes_both() -> None:
    model, counting, request = Over(), Counting(), job()
    with closing(matte.matted(model.frames(request), request, lambda: counting)) as events:
        next(event for event in events if isinstance(event, Chunk))
    assert (model.closed, counting.closed) == (True, True)
    assert counting.made == 2


def test_alpha_that_hides_nothing_costs_nothing() -> None:
    def never() -> Engine:
        raise AssertionError("the draft engine was asked")

    request = job(opaque=True)
    made = toy.frames(matte.matted(Over().frames(request), request, never))
    assert {int(frame.image[..., 3].min()) for frame in made} == {255}
    plain = matte.over_grey(request)
    assert {form_of(f.image) for f in toy.frames(matte.matted(Over().frames(plain), plain, never))} == {RGB8}


def test_what_the_draft_engine_cannot_do_is_said_by_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FlowEngine, "_at_work", _no_room)
    with pytest.raises(RequestError, match="no room"):
        toy.run(job())


def _no_room(engine: FlowEngine, height: int, width: int, along: bool) -> Any:
    assert along, "alpha is moved, and counted"
    raise RequestError("out_of_memory", "no room", "width")  # type: ignore[arg-type]


# Memory


def test_what_moves_along_is_in_the_plan_of_memory() -> None:
    plain = capacity.Need(WAN_1_3B, 3, 21, 0, element_bytes=2)
    held = plain.cache_bytes(832, 480) + plain.weight_bytes
    with_alpha = evolve(plain, matted=True)
    assert with_alpha.at(832, 480) >= held + capacity.draft_bytes(832, 480, along=True) + capacity.DRAFT_WEIGHT_BYTES
    assert with_alpha.at(832, 480) > plain.at(832, 480)
    assert capacity.draft_bytes(832, 480, along=True) > capacity.draft_bytes(832, 480)


@pytest.mark.parametrize("form", [Form(4, 8), Form(3, 16), Form(3, 32)])
def test_a_clip_that_moves_more_than_colours_is_asked_for_more_memory(
    form: Form, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []
    whole = FlowEngine._at_work

    def at_work(engine: FlowEngine, height: int, width: int, along: bool) -> Any:
        asked.append(along)
        return whole(engine, height, width, along)

    monkeypatch.setattr(FlowEngine, "_at_work", at_work)
    pictures = [conformed(shape(x), form) for x in (16, 22)]
    if form.depth == 32:
        pictures = [samples.unit(picture) * 2 for picture in pictures]
    keyframes = tuple(Keyframe(at, picture) for at, picture in zip((0, 2), pictures, strict=True))
    request = Job(toy.WIDTH, toy.HEIGHT, 3, keyframes)
    assert len(toy.frames(the_draft().open(checked(request, the_draft().info)))) == 1
    assert asked == [form.has_alpha or form.depth == 32] * 2
