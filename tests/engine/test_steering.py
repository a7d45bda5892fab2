"""How a clip is steered: the dials of a keyframe's pull, its release, and prompts that change. Toy networks, the real
loop; each dial at rest is the plain rollout, and each has a control that shows it can be told apart."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import attrs
import numpy as np
import pytest
import torch
import toy
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sfwire.errors import ErrorCode, RequestError
from torch import Tensor

from sfserver.engine.base import Step, checked
from sfserver.engine.conditioning import prompts_by_latent
from sfserver.engine.geometry import Block, Geometry, frames_of, latent_from, plan
from sfserver.engine.guide import NO_PULL, Guide, Pull
from sfserver.engine.noise import make_schedule, seeded_noise
from sfserver.engine.presets import PRESETS
from sfserver.engine.rollout import Made, Memory, Networks, Rollout, Sampling
from sfserver.engine.script import Prompt, Switch, looked_back_at

THREE = make_schedule((1000, 750, 500), 5.0)
FOREVER = Memory(window=64)
LAST = 8
"""Of the nine latents of `clip`."""


def prompt(text: str = "a cat") -> Prompt:
    loaded, embeds = toy.weights(), toy.embed_prompt(text)
    assert loaded.vace
    return Prompt(loaded.dit.embed_prompt(embeds), loaded.vace.embed_prompt(loaded.dit.embed_text(embeds)))


def latents(seed: int) -> Tensor:
    return torch.randn(1, 1, 16, 4, 6, generator=torch.Generator().manual_seed(seed))


def clip(num_frames: int = 33, lead: bool = True) -> Geometry:
    return plan(48, 32, num_frames, 3, [1] if lead else [])


def guide(end: int = 9, **dials: Any) -> Guide:
    """A clip from one picture to another; the end is a still."""
    return Guide(known={0: latents(8), LAST: latents(end)}, stills=frozenset({LAST}), **dials)


def make(told: Guide | None, memory: Memory = FOREVER, geometry: Geometry | None = None, **more: Any) -> Rollout:
    geometry = geometry or clip()
    prompts = more.pop("prompts", [prompt()])
    sampling, noise = Sampling(THREE), seeded_noise(0, geometry)
    return Rollout(Networks(toy.weights().dit), geometry, sampling, prompts, noise, told, memory, **more)


def blocks(rollout: Rollout) -> list[Tensor]:
    return [event.latents for event in rollout.run() if isinstance(event, Made)]


def whole(rollout: Rollout) -> Tensor:
    return torch.cat(blocks(rollout), dim=1)


# Release


@pytest.mark.parametrize("release", [1, 2])
def test_a_still_that_is_let_go_moves_and_nothing_before_its_block_changes(release: int) -> None:
    held, let_go = (whole(make(guide(release=n))) for n in (0, release))
    assert torch.equal(held[:, LAST:], latents(9))
    assert (let_go[:, LAST:] - latents(9)).abs().max() > 0.1
    assert torch.equal(held[:, :7], let_go[:, :7]), "blocks before its own"


def test_what_is_let_go_still_depends_on_the_picture() -> None:
    one, other = (whole(make(guide(end, release=1)))[:, LAST:] for end in (9, 10))
    assert (one - other).abs().max() > 0.1


def test_what_moves_by_itself_is_never_let_go() -> None:
    moving = attrs.evolve(guide(release=3), stills=frozenset())
    assert torch.equal(whole(make(moving)), whole(make(guide())))


def test_a_still_that_is_a_block_by_itself_is_made_if_it_is_let_go() -> None:
    geometry = plan(48, 32, 33, 1, [1])
    assert torch.equal(whole(make(guide(), geometry=geometry))[:, LAST:], latents(9))
    rollout = make(guide(release=1), geometry=geometry)
    steps = [event for event in rollout.run() if isinstance(event, Step)]
    assert len(steps) == rollout.total_passes == 1 + 1 + 8 * 3 + 7


def test_presets_let_go_where_a_pass_before_the_last_has_seen_the_picture() -> None:
    released = {preset.id: preset.release for preset in PRESETS}
    assert released["self-forcing"] == released["causvid"] == 1
    assert released["causal-forcing-2step"] == 0


def test_no_frame_of_a_keyframe_is_delivered_and_those_beside_it_move() -> None:
    def run(release: int) -> dict[int, Any]:
        job = toy.job(25, (0, 24), params={"strategy": "anchor", "anchor_release": release, "seam": False})
        return {frame.index: frame.image.astype(int) for frame in toy.frames(toy.run(job))}

    held, let_go = run(0), run(1)
    assert list(held) == list(let_go) == list(range(1, 24)), "the picture at 24 stays the user's own"
    assert all(np.array_equal(held[i], let_go[i]) for i in range(1, 17))
    assert any(np.abs(held[i] - let_go[i]).mean() > 1 for i in range(21, 24))


# Pull


@pytest.mark.parametrize("policy", ["absolute", "relative", "top"])
def test_without_any_pull_it_is_the_plain_rollout_up_to_the_keyframes_block(policy: Any) -> None:
    memory = Memory(12, 1, policy, trained=21)
    plain = attrs.evolve(guide(), known={0: latents(8)})
    pulled = blocks(make(guide(pull=Pull(NO_PULL)), memory))
    for ours, expected in list(zip(pulled, blocks(make(plain, memory)), strict=True))[:-1]:
        torch.testing.assert_close(ours, expected, atol=2e-5, rtol=1e-5)
    with_pull = blocks(make(guide(), memory))
    assert (with_pull[1] - pulled[1]).abs().max() > 1e-3, "the control"


@settings(max_examples=10, deadline=None)
@given(strength=st.sampled_from([-30.0, -2.0, 0.5, 3.0]), window=st.integers(4, 9), sink=st.integers(0, 1))
def test_a_pull_is_what_a_mask_would_add(strength: float, window: int, sink: int) -> None:
    """Against plain attention with the bias on its logits, written out."""
    memory = Memory(window, sink)
    pulled = whole(make(guide(pull=Pull(strength)), memory))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sfserver.model.dit.attend_in_groups", biased_plainly)
        expected = whole(make(guide(pull=Pull(strength)), memory))
    torch.testing.assert_close(pulled, expected, atol=5e-5, rtol=1e-4)


def biased_plainly(q: Tensor, k: Tensor, v: Tensor, groups: Sequence[Any]) -> Tensor:
    bias = torch.full((q.shape[1], k.shape[1]), -math.inf)
    for rows, per_latent in groups:
        bias[:, rows] = torch.tensor(per_latent).repeat_interleave(q.shape[1] // len(per_latent))[:, None]
    logits = torch.einsum("blnd,bknd->bnlk", q, k) * q.shape[-1] ** -0.5 + bias
    return torch.einsum("bnlk,bknd->blnd", logits.softmax(-1), v)


def test_a_dial_at_rest_is_no_dial() -> None:
    plain = whole(make(guide()))
    assert torch.equal(whole(make(guide(pull=Pull(0.0, 0.0, None)))), plain)
    assert torch.equal(whole(make(guide(pull=Pull(reach=21)))), plain)


def test_the_end_is_felt_in_the_first_block_the_more_the_stronger_it_pulls() -> None:
    """Two ends, one beginning: how far the first block is moved by which of them it is."""

    def moved(strength: float) -> float:
        one, other = (blocks(make(guide(end, pull=Pull(strength))))[1] for end in (9, 10))
        return float((one - other).square().mean().sqrt())

    felt = [moved(strength) for strength in (-30.0, -2.0, -1.0, 0.0, 1.0, 2.0)]
    assert felt == sorted(felt)
    assert felt[0] < 1e-4
    assert felt[-1] > 2 * felt[3] > 4 * felt[1]


def test_a_fade_takes_away_right_after_a_keyframe_and_nothing_right_before_the_next() -> None:
    pull, known = Pull(strength=1.0, fade=4.0), [0, 10, 20]
    assert pull.biases(Block(0, 1, 3), known) == {10: (-3.0,), 20: (-3.0,)}
    assert pull.biases(Block(0, 10, 1), known) == {20: (-3.0,)}
    (late,) = (pull.biases(Block(0, 9, 1), known).items(),)
    assert dict(late)[10][0] == pytest.approx(1.0 - 4.0 / 9)
    assert pull.biases(Block(0, 18, 2), known)[20][0] == pytest.approx(1.0 - 4.0 * 2 / 9)
    assert pull.biases(Block(0, 20, 2), known) == {}
    assert Pull(fade=4.0).biases(Block(0, 1, 3), []) == {}


def test_the_first_block_of_a_faded_clip_is_that_of_a_weaker_one() -> None:
    faded, weak = (blocks(make(guide(pull=pull))) for pull in (Pull(1.0, fade=3.0), Pull(-2.0)))
    assert torch.equal(faded[1], weak[1])
    assert not torch.equal(faded[2], weak[2])


@pytest.mark.parametrize("policy", ["absolute", "relative", "top"])
def test_a_key_within_reach_is_one_that_lies_there(policy: Any) -> None:
    """The pinned end of a clip with a reach of two, against the first block of a clip that ends there."""
    memory = Memory(12, 1, policy, trained=21)
    near = Guide(known={0: latents(8), 5: latents(9)}, stills=frozenset({5}))
    far = blocks(make(guide(pull=Pull(reach=2)), memory))[1]
    # its keys are computed where it truly lies, so only the first layer's answer could be the same: they are close
    assert (far - blocks(make(near, memory))[1]).abs().mean() < (blocks(make(guide(), memory))[1] - far).abs().mean()


@settings(max_examples=8, deadline=None)
@given(stop_after=st.integers(0, 14), strength=st.sampled_from([0.0, 2.0]), reach=st.sampled_from([1, 3, None]))
def test_a_steered_rollout_that_was_closed_goes_on_as_if_it_had_not_been(
    stop_after: int, strength: float, reach: int | None
) -> None:
    told = guide(pull=Pull(strength, 1.0, reach), release=1)
    switches = [Switch(4, [prompt("a dog")])]
    memory = Memory(7, 1, renew=True)
    undisturbed = whole(make(told, memory, switches=switches))
    rollout, parts = make(told, memory, switches=switches), []
    run = rollout.run()
    for _ in range(stop_after):
        event = next(run, None)
        parts += [event.latents] if isinstance(event, Made) else []
    run.close()
    assert torch.equal(torch.cat([*parts, *blocks(rollout)], dim=1), undisturbed)


# Prompts over time


@given(frame=st.integers(0, 480))
def test_a_prompt_changes_nothing_before_its_frame_and_no_later_than_four_frames_on(frame: int) -> None:
    first = frames_of(latent_from(frame))[0]
    assert frame <= first < frame + 4


def test_prompts_that_say_the_same_are_one() -> None:
    assert prompts_by_latent("a", [(0, "b"), (1, "b"), (9, "c"), (10, "d"), (30, "d")]) == {0: "b", 3: "c", 4: "d"}
    assert prompts_by_latent("a", []) == {0: "a"}


@pytest.mark.parametrize("renew", [False, True])
def test_nothing_changes_before_the_block_at_which_a_prompt_does(renew: bool) -> None:
    memory = Memory(9, 1, renew=renew)
    plain = blocks(make(guide(), memory))
    switched = blocks(make(guide(), memory, switches=[Switch(3, [prompt("a dog")])]))
    assert all(torch.equal(a, b) for a, b in zip(plain[:2], switched[:2], strict=True))
    assert all((a - b).abs().max() > 1e-2 for a, b in zip(plain[2:], switched[2:], strict=True))


def test_a_prompt_from_the_beginning_is_the_prompt() -> None:
    switched = whole(make(guide(), switches=[Switch(1, [prompt("a dog")])]))
    everywhere = whole(make(attrs.evolve(guide()), prompts=[prompt("a dog")]))
    assert not torch.equal(switched, everywhere), "the first picture was placed under the other"
    geometry = clip(lead=False)
    told = Guide()
    switched = whole(make(told, geometry=geometry, switches=[Switch(0, [prompt("a dog")])]))
    assert torch.equal(switched, whole(make(told, geometry=geometry, prompts=[prompt("a dog")])))


def test_a_window_that_is_made_anew_under_the_same_words_is_the_same() -> None:
    memory, again = Memory(64, 1, renew=True), [Switch(4, [prompt()])]
    torch.testing.assert_close(
        whole(make(guide(), memory, switches=again)), whole(make(guide(), memory)), atol=2e-5, rtol=1e-4
    )


def test_a_window_that_is_made_anew_has_forgotten_the_words_before() -> None:
    """Without a sink or a keyframe, all that is looked back at is as if it had been remembered under the new prompt."""
    geometry, memory = clip(lead=False), Memory(9, renew=True)
    switched = make(None, memory, geometry, switches=[Switch(6, [prompt("a dog")])])
    made = blocks(switched)
    (cache,) = (cache for _, cache in switched._branches)
    assert cache
    fresh = make(None, Memory(9), geometry, prompts=[prompt("a dog")])
    for block, block_latents in zip(geometry.blocks[:2], made, strict=False):
        fresh._take_in(block_latents, 0.0, block)
    (expected,) = (cache for _, cache in fresh._branches)
    assert expected
    tokens = 6 * geometry.tokens_per_latent
    for layer in range(3):
        for ours, theirs in zip(cache.read(layer), expected.read(layer), strict=True):
            torch.testing.assert_close(ours[:, :tokens], theirs, atol=2e-5, rtol=1e-4)
    keeping = make(None, attrs.evolve(memory, renew=False), geometry, switches=[Switch(6, [prompt("a dog")])])
    assert (blocks(keeping)[2] - made[2]).abs().max() > 1e-3, "the control: most models keep what they saw"


@settings(max_examples=15, deadline=None)
@given(
    num_frames=st.integers(9, 61),
    window=st.integers(4, 9),
    sink=st.integers(0, 1),
    at=st.sets(st.integers(1, 15), max_size=2),
    pinned=st.integers(1, 15),
)
@example(num_frames=26, window=4, sink=0, at={5}, pinned=1)  # the first seat is empty when the window is made anew
def test_passes_are_counted_whatever_changes(
    num_frames: int, window: int, sink: int, at: set[int], pinned: int
) -> None:
    geometry, memory = clip(num_frames), Memory(window, sink, renew=True)
    known = {0: latents(8), min(pinned, geometry.latents - 1): latents(9)}
    switches = [Switch(latent, [prompt(str(latent))]) for latent in sorted(at)]
    rollout = make(Guide(known=known), memory, geometry, switches=switches)
    for event in rollout.run():
        if isinstance(event, Step):
            last = event
    assert (last.step, rollout._passes) == (rollout.total_passes, rollout.total_passes)


def test_a_second_transformer_makes_the_clean_passes_and_no_other() -> None:
    """Self Gradient Forcing+: the same weights twice are the plain model; others change what is looked back at."""
    loaded = toy.weights()
    second = toy.fresh_weights().dit
    text = second.embed_prompt(toy.embed_prompt("a cat"))

    def run(clean: Any) -> list[Tensor]:
        geometry, told = clip(lead=False), None
        prompts = [attrs.evolve(prompt(), clean_text=text)]
        networks = Networks(loaded.dit, clean=clean)
        rollout = Rollout(networks, geometry, Sampling(THREE), prompts, seeded_noise(0, geometry), told, FOREVER)
        return blocks(rollout)

    plain = run(None)
    assert all(torch.equal(a, b) for a, b in zip(plain, run(second), strict=True))
    with torch.no_grad():
        second.blocks[0].modulation += 0.5
    other = run(second)
    assert torch.equal(plain[0], other[0]), "denoising is the first one's"
    assert all((a - b).abs().max() > 1e-3 for a, b in zip(plain[1:], other[1:], strict=True))


def test_what_is_looked_back_at_is_what_a_cache_holds_besides_its_sink() -> None:
    geometry = plan(48, 32, 161, 3, [1])
    runs = looked_back_at(geometry.blocks[6], geometry, window=9, sink=2, pinned=frozenset({5, 30}))
    assert [list(run.latents) for run in runs] == [[5], [9], [10, 11, 12], [13, 14, 15]]
    assert looked_back_at(geometry.blocks[0], geometry, 9, 2, frozenset()) == []


def test_an_engine_is_told_prompts_over_time() -> None:
    def run(**prompts: Any) -> list[Any]:
        job = toy.job(25, (0, 24), params={"strategy": "anchor", "seam": False}, **prompts)
        return [frame.image for frame in toy.frames(toy.run(job))]

    plain = run()
    assert all(np.array_equal(a, b) for a, b in zip(plain, run(prompts=((9, "a cat"),)), strict=True))
    later = run(prompts=((9, "a dog"),))
    same = [np.array_equal(a, b) for a, b in zip(plain, later, strict=True)]
    assert same == [True] * 12 + [False] * 11, "blocks begin at frames 1 and 13"


def test_a_clip_that_is_made_at_once_has_one_prompt() -> None:
    job = toy.job(25, (0, 24), params={"strategy": "joint"}, prompts=((9, "a dog"),))
    with pytest.raises(RequestError, match="is made at once") as caught:
        toy.run(job)
    assert (caught.value.code, caught.value.field) == (ErrorCode.BAD_VALUE, "prompts")


def test_a_prompt_outside_the_clip_is_refused() -> None:
    with pytest.raises(RequestError, match="outside the clip") as caught:
        checked(toy.job(25, prompts=((25, "a dog"),)), toy.engine().info)
    assert caught.value.field == "prompts[0].at"
