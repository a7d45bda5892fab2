"""What the model is told about keyframes, wherever they are."""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from typing import Any, TypeVar

import numpy as np
import pytest
import torch
import toy
from hypothesis import given, settings
from hypothesis import strategies as st

from sfserver.engine import conditioning
from sfserver.engine.base import Keyframe, Step
from sfserver.engine.conditioning import (
    ClipContext,
    GreyClip,
    Strategy,
    encode_stills,
    plan_clip,
    shown_at,
    to_pixels,
)
from sfserver.engine.geometry import frames_of, latent_of
from sfserver.engine.presets import PRESETS, SELF_FORCING_VACE

T = TypeVar("T")
places = st.sets(st.integers(0, 60), min_size=1, max_size=8).map(sorted)


def result_of(generator: Generator[Step, None, T]) -> T:
    with torch.no_grad():
        while True:
            try:
                next(generator)
            except StopIteration as stop:
                return stop.value


def keyframes(*at: int) -> tuple[Keyframe, ...]:
    return tuple(Keyframe(a, toy.picture(a)) for a in at)


def context_of(given: tuple[Keyframe, ...], num_frames: int, by_block: bool) -> torch.Tensor:
    vae = toy.weights().vae
    geometry = conditioning.plan(toy.WIDTH, toy.HEIGHT, num_frames, None)
    context = ClipContext(vae, GreyClip(vae), given, geometry, by_block, toy.CPU)
    return result_of(context(range(geometry.latents)))


@settings(max_examples=100)
@given(at=places, fill=st.booleans())
def test_a_keyframe_is_held_to_the_end_of_its_latent_and_no_further(at: list[int], fill: bool) -> None:
    given = tuple(Keyframe(a, np.empty(0, np.uint8)) for a in at)
    shown = shown_at(given, fill)
    for frame in range(70):
        before = [a for a in at if a <= frame and latent_of(a) == latent_of(frame)]
        in_latent = [a for a in at if latent_of(a) == latent_of(frame)]
        expected = before[-1] if before else in_latent[0] if fill and in_latent else None
        assert (shown[frame].at if frame in shown else None) == expected


def test_a_still_is_a_latent_of_four_equal_frames() -> None:
    vae = toy.weights().vae
    (still,) = result_of(encode_stills(vae, keyframes(8), toy.CPU))
    pixels = to_pixels(keyframes(8)[0].image, toy.CPU).expand(-1, 5, -1, -1, -1)
    assert still.at == 2
    assert torch.equal(still.latent, vae.encode(pixels)[:, 1:])


def test_the_first_frame_is_a_latent_by_itself() -> None:
    vae = toy.weights().vae
    (still,) = result_of(encode_stills(vae, keyframes(0), toy.CPU))
    assert still.latents.shape[1] == 1
    assert torch.equal(still.latent, vae.encode(to_pixels(keyframes(0)[0].image, toy.CPU)))


def test_a_run_of_given_frames_is_the_latents_that_it_is() -> None:
    """Five frames from the first on, and four at the end, the way a neighbour in motion is told."""
    vae, given = toy.weights().vae, keyframes(0, 1, 2, 3, 4, 21, 22, 23, 24)
    stills = result_of(encode_stills(vae, given, toy.CPU))
    assert [still.at for still in stills] == [0, 1, 6]
    pixels = torch.cat([to_pixels(k.image, toy.CPU) for k in given], dim=1)
    start = vae.encode(pixels[:, :5])
    assert torch.equal(torch.cat([still.latent for still in stills[:2]], dim=1), start)
    assert torch.equal(stills[2].latent, vae.encode(torch.cat((pixels[:, 5:6], pixels[:, 5:]), dim=1))[:, 1:])
    (alone,) = result_of(encode_stills(vae, given[1:5], toy.CPU))
    assert not torch.equal(alone.latent, stills[1].latent), "the frame before is known, and the first latent's own"


def test_a_run_goes_on_over_latents_and_a_gap_ends_it() -> None:
    vae, given = toy.weights().vae, keyframes(*range(4, 13), 15)
    stills = result_of(encode_stills(vae, given, toy.CPU))
    assert [(still.at, still.latents.shape[1]) for still in stills] == [(1, 2), (2, 3), (3, 4), (4, 2)]
    pixels = torch.cat([to_pixels(k.image, toy.CPU) for k in given], dim=1)
    filled = torch.cat((pixels[:, :1], pixels[:, :1].expand(-1, 4, -1, -1, -1), pixels[:, 1:9]), dim=1)
    assert torch.equal(stills[2].latents, vae.encode(filled))


def test_16_pictures_and_runs_at_both_ends_are_one_clip() -> None:
    inside = tuple(range(9, 9 + 14 * 4, 4))
    job = toy.job(73, (*range(5), *inside, *range(69, 73)), params={"strategy": "anchor"})
    assert [frame.index for frame in toy.frames(toy.run(job))] == job.wanted()


@pytest.mark.parametrize(
    ("at", "counts"),
    [
        ((0, 24), [1, 3, 3]),
        ((*range(5), 24), [1, 1, 3, 2]),
        ((*range(4), 24), [1, 3, 3]),
        ((*range(17), 24), [1, 3, 1, 2]),
        (tuple(range(25)), [1, 3, 2, 1]),
    ],
)
def test_first_frames_that_are_given_are_blocks_that_are_not_made(at: tuple[int, ...], counts: list[int]) -> None:
    parsed = Strategy.parse("anchor", has_vace=False)
    geometry = plan_clip(toy.WIDTH, toy.HEIGHT, 25, keyframes(*at), SELF_FORCING_VACE, parsed)
    assert [block.count for block in geometry.blocks] == counts


def test_a_latent_whose_frames_are_all_given_has_nothing_to_let_go() -> None:
    given = keyframes(0, 12, *range(21, 25), 29)
    stills = result_of(encode_stills(toy.weights().vae, given, toy.CPU))
    parsed = Strategy.parse("anchor", has_vace=False)
    geometry = plan_clip(toy.WIDTH, toy.HEIGHT, 30, given, SELF_FORCING_VACE, parsed)
    assert conditioning.guide(parsed, geometry, stills, None).stills == {3}


def test_two_keyframes_in_one_latent_are_one_still() -> None:
    given = keyframes(5, 7)
    (still,) = result_of(encode_stills(toy.weights().vae, given, toy.CPU))
    assert still.keyframes == given
    (alone,) = result_of(encode_stills(toy.weights().vae, given[:1], toy.CPU))
    assert not torch.equal(still.latent, alone.latent)


def test_context_of_end_keyframes_is_what_vace_was_trained_with() -> None:
    vae, given = toy.weights().vae, keyframes(0, 8)
    pixels = torch.zeros(1, 9, 3, toy.HEIGHT, toy.WIDTH)
    for keyframe in given:
        pixels[:, keyframe.at] = to_pixels(keyframe.image, toy.CPU)[0]
    context = context_of(given, 9, by_block=False)
    torch.testing.assert_close(context[:, :, :16], vae.encode(pixels), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(context[:, :, 16:32], vae.encode(torch.zeros_like(pixels)), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("num_frames", [33, 81, 161])
def test_by_block_the_mask_names_the_latents_that_hold_keyframes_wherever_they_are(num_frames: int) -> None:
    vae, geometry = toy.weights().vae, conditioning.plan(toy.WIDTH, toy.HEIGHT, num_frames, None)
    for at in range(num_frames):
        context = ClipContext(vae, GreyClip(vae), keyframes(at), geometry, True, toy.CPU)
        mask = context._mask[0, :, :, 0, 0]
        assert mask.sum(0).unique().tolist() == [geometry.latents - 1]
        assert mask[latent_of(at)].max() == 0


def test_a_folded_mask_would_name_others() -> None:
    """What VACE was trained with, in a clip of 81 frames: a picture in all of latent 3 is seen as one in latent 2."""
    vae, geometry = toy.weights().vae, conditioning.plan(toy.WIDTH, toy.HEIGHT, 81, None)
    four = keyframes(9, 10, 11, 12)
    mask = ClipContext(vae, GreyClip(vae), four, geometry, False, toy.CPU)._mask[0, :, 0, 0, 0]
    assert mask.tolist().index(0) == 2


@pytest.mark.parametrize(
    ("strategy", "at", "num_frames", "in_parts"),
    [
        ("chunk", (0, 32), 33, True),
        ("chunk+anchor", (0, 32), 33, False),
        ("chunk+anchor", (0, 16, 32), 33, True),
        ("lookahead", (0, 32), 33, False),
        ("lookahead", (0, 160), 161, True),
        ("joint", (0, 16, 32), 33, False),
    ],
)
def test_the_encoder_waits_for_more_only_where_a_later_block_needs_more(
    strategy: str, at: tuple[int, ...], num_frames: int, in_parts: bool
) -> None:
    parsed = Strategy.parse(strategy, has_vace=True)
    geometry = plan_clip(toy.WIDTH, toy.HEIGHT, num_frames, keyframes(*at), SELF_FORCING_VACE, parsed)
    assert conditioning.is_encoded_in_parts(parsed, geometry, keyframes(*at)) is in_parts


def test_the_encoders_state_goes_with_the_last_latent() -> None:
    vae, geometry = toy.weights().vae, conditioning.plan(toy.WIDTH, toy.HEIGHT, 21, None)
    context = ClipContext(vae, GreyClip(vae), keyframes(0, 20), geometry, True, toy.CPU)
    result_of(context(range(3)))
    assert context._state
    assert context._state.nbytes
    result_of(context(range(3, 6)))
    assert context._state is None
    assert torch.equal(result_of(context(range(2))), context_of(keyframes(0, 20), 21, by_block=True)[:, :2])


def test_grey_clip_of_another_length_is_the_same_clip() -> None:
    vae = toy.weights().vae
    grey = GreyClip(vae)
    geometries = [conditioning.plan(toy.WIDTH, toy.HEIGHT, n, None) for n in (5, 13, 9)]
    clips = [result_of(grey.latents(geometry, toy.CPU)) for geometry in geometries]
    assert [clip.shape[1] for clip in clips] == [2, 4, 3]
    assert torch.equal(clips[1][:, :3], clips[2])
    assert torch.equal(clips[1], result_of(GreyClip(vae).latents(geometries[1], toy.CPU)))
    other = result_of(grey.latents(conditioning.plan(toy.WIDTH, 2 * toy.HEIGHT, 5, None), toy.CPU))
    assert other.shape[-2] == 2 * clips[0].shape[-2], "another size is another clip"


@settings(max_examples=10, deadline=None)
@given(
    at=st.sets(st.integers(0, 20), min_size=1, max_size=3).map(sorted), stops=st.lists(st.integers(1, 6), max_size=4)
)
def test_context_in_parts_with_interruptions_is_the_context(at: list[int], stops: list[int]) -> None:
    vae, geometry = toy.weights().vae, conditioning.plan(toy.WIDTH, toy.HEIGHT, 21, None)
    context = ClipContext(vae, GreyClip(vae), keyframes(*at), geometry, True, toy.CPU)
    for stop in stops:  # asked for, and given up after one step
        with torch.no_grad(), contextlib.closing(context(range(stop))) as steps:
            next(steps, None)
    parts = [result_of(context(span)) for span in (range(2), range(2, 3), range(3, 6))]
    assert torch.equal(torch.cat(parts, dim=1), context_of(keyframes(*at), 21, by_block=True))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("anchor", Strategy(anchor=True)),
        ("chunk", Strategy(vace=True)),
        ("lookahead+anchor", Strategy(anchor=True, vace=True, lookahead=True)),
        ("joint", Strategy(vace=True, whole=True)),
        ("joint+anchor", Strategy(anchor=True, vace=True, whole=True)),
    ],
)
def test_strategies_are_what_their_names_say(name: str, expected: Strategy) -> None:
    assert Strategy.parse(name, has_vace=True) == expected
    without = Strategy.parse(name, has_vace=False)
    assert not without.vace
    assert without.anchor == expected.anchor


def test_every_preset_names_strategies_that_tell_it_about_keyframes() -> None:
    for preset in PRESETS:
        for name in preset.strategies:
            strategy = Strategy.parse(name, bool(preset.dit.vace_layers))
            assert strategy.anchor or strategy.vace, (preset.id, name)


@pytest.mark.parametrize(
    ("strategy", "at", "counts"),
    [
        ("anchor", (0, 24), [1, 3, 3]),
        ("anchor", (5, 24), [3, 3, 1]),
        ("chunk", (0, 24), [3, 3, 1]),
        ("joint+anchor", (0, 24), [7]),
    ],
)
def test_blocks_of_a_strategy(strategy: str, at: tuple[int, ...], counts: list[int]) -> None:
    job: Any = toy.job(25, at)
    parsed = Strategy.parse(strategy, has_vace=True)
    geometry = plan_clip(job.width, job.height, job.num_frames, job.keyframes, SELF_FORCING_VACE, parsed)
    assert [block.count for block in geometry.blocks] == counts
    assert frames_of(geometry.latents - 1).stop >= job.num_frames
