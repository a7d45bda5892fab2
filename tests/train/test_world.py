"""The small world: what its clips promise, and the oracle that judges by them."""

from __future__ import annotations

import pytest
import torch

from sfserver.train import oracle, world


def random(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("num_frames", world.CLIP_FRAMES)
def test_every_verb_begins_and_ends_with_the_same_two_pictures(num_frames: int) -> None:
    clips = world.all_verbs(3, num_frames, random())
    per_scene = clips.pixels.unflatten(0, (3, len(world.VERBS)))
    for end in (0, -1):
        pictures = per_scene[:, :, end]
        torch.testing.assert_close(pictures, pictures[:, :1].expand_as(pictures), atol=1e-4, rtol=0)


def test_another_verb_is_another_clip() -> None:
    clips = world.all_verbs(1, 18, random())
    between = clips.pixels[:, 1:-1].flatten(1)
    apart = torch.cdist(between, between) + torch.eye(len(world.VERBS)) * 1e9
    assert apart.min() > 5.0


def test_a_keyframe_at_the_end_is_the_first_frame_of_its_latent() -> None:
    assert all(frames % 4 == 2 for frames in world.CLIP_FRAMES)


def test_what_is_drawn_contrasts_with_both_halves_of_its_ground() -> None:
    scenes = world.scenes(300, random())
    colour = world.colours(scenes)[:, 0, :, 0, 0]
    ground = world.grounds(scenes)[:, 0, :, [0, -1], 0]
    assert (colour[..., None] - ground).norm(dim=1).min() >= world.LEAST_CONTRAST
    assert len(set(scenes.colour.tolist())) == len(world.COLOURS)


def test_the_same_seed_says_the_same_and_every_sentence_is_in_the_book() -> None:
    said = [world.captions(world.clips(40, 18, g := random(3)), g) for _ in range(2)]
    assert said[0] == said[1]
    assert set(said[0]) <= set(world.every_caption())


@pytest.mark.parametrize("num_frames", world.CLIP_FRAMES)
def test_the_oracle_names_every_verb_of_true_clips(num_frames: int) -> None:
    clips = world.all_verbs(4, num_frames, random(11))
    assert torch.equal(oracle.name_verbs(clips.pixels, clips.scenes), clips.verbs)


def test_the_oracle_bears_blur_and_noise() -> None:
    clips = world.all_verbs(4, 18, random(12))
    blurred = torch.nn.functional.avg_pool2d(clips.pixels.flatten(0, 1), 3, 1, 1).unflatten(0, clips.pixels.shape[:2])
    noisy = (blurred + 0.05 * torch.randn(blurred.shape, generator=random())).clamp(0, 1)
    assert (oracle.name_verbs(noisy, clips.scenes) == clips.verbs).float().mean() >= 0.95


def test_the_oracle_is_not_told_the_verb() -> None:
    """The control: clips under the names of others are not recognised."""
    clips = world.all_verbs(4, 18, random(13))
    others = clips.verbs.roll(1)
    assert (oracle.name_verbs(clips.pixels, clips.scenes) == others).float().mean() == 0


def test_a_dissolve_is_no_motion_to_the_oracle() -> None:
    clips = world.clips(20, 18, random(14))
    t = torch.linspace(0, 1, 18)[None, :, None, None, None]
    dissolve = clips.pixels[:, :1] * (1 - t) + clips.pixels[:, -1:] * t
    named = {world.VERB_NAMES[verb] for verb in oracle.name_verbs(dissolve, clips.scenes).tolist()}
    assert named <= {"fades", "rolls"}
