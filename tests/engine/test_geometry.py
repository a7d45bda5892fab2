"""Frames, latents and blocks of clips of any length."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from sfserver.engine.geometry import frames_of, latent_of, plan

clips = st.tuples(st.integers(1, 481), st.sampled_from([None, 1, 2, 3]), st.lists(st.integers(1, 3), max_size=2))


@settings(max_examples=200)
@given(frame=st.integers(0, 480))
def test_a_frame_lies_in_its_latent(frame: int) -> None:
    assert frame in frames_of(latent_of(frame))


def test_latents_partition_the_frames() -> None:
    assert [frame for latent in range(121) for frame in frames_of(latent)] == list(range(481))


@settings(max_examples=200)
@given(clip=clips)
def test_blocks_follow_each_other_and_hold_the_clip(clip: tuple[int, int | None, list[int]]) -> None:
    num_frames, per_block, given_counts = clip
    geometry = plan(64, 48, num_frames, per_block, given_counts)
    stops = [block.stop for block in geometry.blocks]
    assert [block.start for block in geometry.blocks] == [0, *stops[:-1]]
    assert frames_of(geometry.latents - 1).stop >= num_frames
    assert geometry.latents == max(geometry.needed_latents, sum(given_counts)), "none is made for nothing"
    assert frames_of(geometry.needed_latents - 1).stop >= num_frames


@settings(max_examples=200)
@given(clip=clips)
def test_no_block_is_made_for_nothing(clip: tuple[int, int | None, list[int]]) -> None:
    num_frames, per_block, given_counts = clip
    geometry = plan(64, 48, num_frames, per_block, given_counts)
    assert all(frames_of(block.start)[0] < num_frames for block in geometry.made)
    assert [block.index for block in geometry.made] == list(range(len(geometry.made)))


def test_published_lengths() -> None:
    assert plan(832, 480, 81, 3).latents == 21
    assert [b.count for b in plan(832, 480, 81, 3).blocks] == [3] * 7
    assert [b.count for b in plan(832, 480, 73, 3, given=[1]).blocks] == [1, 3, 3, 3, 3, 3, 3]
    assert [b.count for b in plan(832, 480, 81, 3, given=[1]).blocks] == [1, 3, 3, 3, 3, 3, 3, 2], "21 as trained"
    assert plan(832, 480, 81, 3).tokens_per_latent == 1560
    assert [b.count for b in plan(832, 480, 81, None).blocks] == [21]
    assert [b.count for b in plan(832, 480, 73, 3, first=1).made] == [1, 3, 3, 3, 3, 3, 3]
