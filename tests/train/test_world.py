"""The small world: what its clips promise, and the oracle that judges by them."""

from __future__ import annotations

import pytest
import torch

from sfserver.train import oracle, verbs, world


def random(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("num_frames", world.CLIP_FRAMES)
def test_every_verb_begins_and_ends_with_the_same_two_pictures(num_frames: int) -> None:
    clips = world.all_verbs(6, num_frames, random())
    for rows in scene_rows(clips):
        pictures = clips.pixels[rows][:, [0, -1]]
        torch.testing.assert_close(pictures, pictures[:1].expand_as(pictures), atol=1e-4, rtol=0)


def test_another_verb_is_another_clip() -> None:
    clips = world.all_verbs(6, 18, random())
    for rows in scene_rows(clips):
        between = clips.pixels[rows][:, 1:-1].flatten(1)
        apart = torch.cdist(between, between) + torch.eye(len(rows)) * 1e9
        assert apart.min() > 3.0


def scene_rows(clips: world.Clips) -> list[torch.Tensor]:
    """The rows of each scene: those that begin at the same place."""
    places = clips.scenes.x_start
    return [(places == place).nonzero()[:, 0] for place in places.unique()]


def test_a_keyframe_at_the_end_is_the_first_frame_of_its_latent() -> None:
    assert all(frames % 4 == 2 for frames in world.CLIP_FRAMES)


def test_what_is_drawn_contrasts_with_both_halves_of_its_ground() -> None:
    scenes = world.scenes(300, random())
    colour = world.colours(scenes)[:, 0, :, 0, 0]
    ground = world.grounds(scenes)[:, 0, :, [0, -1], 0]
    assert (colour[..., None] - ground).norm(dim=1).min() >= world.LEAST_CONTRAST
    assert len(set(scenes.colour.tolist())) == len(world.COLOURS)


def test_what_moves_contrasts_with_who_stands_by() -> None:
    scenes = world.scenes(300, random())
    table = torch.tensor(list(world.COLOURS.values()))
    there = scenes.by_colour >= 0
    apart = (table[scenes.by_colour] - table[scenes.colour][:, None]).norm(dim=-1)
    assert apart[there].min() >= world.LEAST_CONTRAST
    assert {int(count) for count in there.sum(1)} == {0, 1, 2}


def test_a_verb_is_asked_for_only_where_it_can_be_seen() -> None:
    """Of those that cannot, the clips are the same as of plain motion."""
    scenes = world.scenes(60, random())
    can = world.allowed(scenes)
    spins, rolls = (verbs.VERB_NAMES.index(name) for name in ("spins", "rolls"))
    hidden = (~can[:, spins]).nonzero()[:, 0]
    assert len(hidden) > 0
    there = scenes.pick(hidden)
    turned, straight = (world.of_verbs(there, torch.full((len(there),), verb), 18).pixels for verb in (spins, rolls))
    torch.testing.assert_close(turned, straight, atol=1e-4, rtol=0)
    assert torch.equal(can[:, verbs.VERB_NAMES.index("hides")], scenes.post)


def test_what_hides_is_not_to_be_seen_halfway() -> None:
    scenes = world.scenes(60, random())
    behind = scenes.pick(scenes.post)
    track = world.track(behind, torch.full((len(behind),), verbs.VERB_NAMES.index("hides")), 18)
    seen = world.covering(behind, track).sum((-1, -2, -3))
    assert (seen[:, 9] < 0.12 * seen[:, 0]).all()


def test_an_open_sentence_is_obeyed_by_two_verbs_that_differ() -> None:
    clips = world.clips(400, 18, g := random(4))
    said = world.captions(clips, g)
    opened = torch.tensor([world.is_open(sentence) for sentence in said])
    assert 0 < opened.sum() < len(said) / 4
    others = world.with_others(clips)
    assert (others.verbs != clips.verbs)[opened].all()
    for row in opened.nonzero()[:, 0].tolist():
        phrase = next(phrase for phrase in verbs.OPEN if said[row].endswith(phrase))
        assert {verbs.VERB_NAMES[v] for v in (clips.verbs[row], others.verbs[row])} == set(verbs.OPEN[phrase])


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
    assert (oracle.name_verbs(noisy, clips.scenes) == clips.verbs).float().mean() >= 0.9


def test_the_oracle_is_not_told_the_verb() -> None:
    """The control: clips under the names of others are not recognised."""
    clips = world.all_verbs(4, 18, random(13))
    others = clips.verbs.roll(1)
    assert (oracle.name_verbs(clips.pixels, clips.scenes) == others).float().mean() == 0


def test_a_dissolve_is_no_motion_to_the_oracle() -> None:
    clips = world.clips(20, 18, random(14))
    t = torch.linspace(0, 1, 18)[None, :, None, None, None]
    dissolve = clips.pixels[:, :1] * (1 - t) + clips.pixels[:, -1:] * t
    named = {verbs.VERB_NAMES[verb] for verb in oracle.name_verbs(dissolve, clips.scenes).tolist()}
    assert named <= {"fades", "rolls", "swells"}  # two halves of a shape are wider than one
