"""Laws of the rollout, at the level of latents: toy networks, the real loop."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
import torch
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from toy import embed_prompt, weights

from sfserver.engine.base import Step
from sfserver.engine.geometry import Geometry, plan
from sfserver.engine.guide import Guide, encoded
from sfserver.engine.noise import make_schedule, seeded_noise
from sfserver.engine.rollout import Made, Memory, Networks, Prompt, Rollout, Sampling
from sfserver.model.dit import Nag

STEPS = make_schedule((1000, 500), 5.0)
FOREVER = Memory(window=64)


def prompt(text: str = "a cat", negative: str | None = None, nag: Nag | None = None) -> Prompt:
    loaded, embeds = weights(), embed_prompt(text)
    assert loaded.vace
    away = embed_prompt(negative) if negative is not None else None
    return Prompt(loaded.dit.embed_prompt(embeds, away, nag), loaded.vace.embed_prompt(loaded.dit.embed_text(embeds)))


def latents(count: int, seed: int) -> Tensor:
    return torch.randn(1, count, 16, 4, 6, generator=torch.Generator().manual_seed(seed))


def clip(num_frames: int = 33, per_block: int | None = 3, lead: int = 0) -> Geometry:
    return plan(48, 32, num_frames, per_block, [lead] if lead else [])


def make(
    geometry: Geometry, seed: int = 0, guide: Guide | None = None, memory: Memory | None = FOREVER, **more: Any
) -> Rollout:
    return Rollout(
        Networks(weights().dit, weights().vace),
        geometry,
        more.pop("sampling", Sampling(STEPS)),
        more.pop("prompts", [prompt()]),
        seeded_noise(seed, geometry),
        guide,
        memory,
        **more,
    )


def blocks(rollout: Rollout) -> list[Tensor]:
    return [event.latents for event in rollout.run() if isinstance(event, Made)]


def whole(rollout: Rollout) -> Tensor:
    return torch.cat(blocks(rollout), dim=1)


def context_of(geometry: Geometry, seed: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(1, geometry.latents, 96, 4, 6, generator=generator)


@settings(max_examples=6, deadline=None)
@given(
    num_frames=st.integers(3, 45),
    per_block=st.integers(1, 3),
    window=st.integers(5, 9),
    sink=st.integers(0, 2),
    seed=st.integers(0, 2**63 - 1),
)
def test_same_seed_same_bytes(num_frames: int, per_block: int, window: int, sink: int, seed: int) -> None:
    geometry, memory = clip(num_frames, per_block), Memory(window, sink)
    first, second = (whole(make(geometry, seed, memory=memory)) for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first, whole(make(geometry, seed ^ 1, memory=memory)))


@settings(max_examples=12, deadline=None)
@given(stop_after=st.integers(0, 16), lead=st.integers(0, 1), window=st.integers(4, 9))
def test_a_rollout_that_was_closed_goes_on_as_if_it_had_not_been(stop_after: int, lead: int, window: int) -> None:
    geometry = clip(lead=lead)
    guide = Guide(known={**({0: latents(1, 8)} if lead else {}), 7: latents(1, 9)})
    memory = Memory(window, sink=1)
    undisturbed = whole(make(geometry, guide=guide, memory=memory))

    rollout, made = make(geometry, guide=guide, memory=memory), []
    run = rollout.run()
    for _ in range(stop_after):
        event = next(run, None)
        made += [event.latents] if isinstance(event, Made) else []
    run.close()
    assert torch.equal(torch.cat([*made, *blocks(rollout)], dim=1), undisturbed)


def test_without_truncation_a_closed_rollout_would_see_its_own_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Rollout, "_truncate", lambda self, start: None)
    geometry = clip()
    rollout = make(geometry)
    run = rollout.run()
    events = [next(run) for _ in range(5)]  # block 0, its clean pass, and one pass over block 1
    assert sum(isinstance(event, Made) for event in events) == 1
    run.close()
    (cache,) = (cache for _, cache in rollout._branches)
    assert cache is not None
    assert cache.positions == list(range(6)), "the broken-off block is still there"


def test_closing_makes_no_further_pass_and_frees_the_cache() -> None:
    rollout = make(clip())
    passes = 0

    def count(*_: object) -> None:
        nonlocal passes
        passes += 1

    hook = weights().dit.register_forward_hook(count)
    run = rollout.run()
    next(run)
    run.close()
    hook.remove()
    assert passes == 1
    (cache,) = (weakref.ref(cache) for _, cache in rollout._branches if cache)
    del rollout, run
    gc.collect()
    assert cache() is None


def test_one_block_needs_no_cache() -> None:
    geometry = clip(per_block=None)
    torch.testing.assert_close(whole(make(geometry, memory=None)), whole(make(geometry)), atol=1e-5, rtol=1e-5)


def test_steps_count_every_pass_to_the_end() -> None:
    rollout = make(clip(), guide=Guide(known={7: latents(1, 9)}))
    steps = [event for event in rollout.run() if isinstance(event, Step)]
    assert [step.step for step in steps] == list(range(1, rollout.total_passes + 1))
    assert {step.of for step in steps} == {rollout.total_passes}


def test_a_keyframe_enters_the_clip_as_it_is() -> None:
    known = {0: latents(1, 8), 5: latents(1, 9)}
    made = whole(make(clip(lead=1), guide=Guide(known=known)))
    for position, latent in known.items():
        assert torch.equal(made[:, position : position + 1], latent)


def ends(strategy: str, end_seed: int) -> list[Tensor]:
    """Blocks of a clip of which the last latent's content is `end_seed`, told by a strategy."""
    geometry = clip()
    last = geometry.latents - 1
    context = context_of(geometry)
    context[:, last] = torch.randn(96, 4, 6, generator=torch.Generator().manual_seed(end_seed))
    vace = {"context": encoded(context), "told": frozenset({0, last})}
    guides = {
        "anchor": Guide(known={last: latents(1, end_seed)}),
        "chunk": Guide(**vace),
        "lookahead": Guide(**vace, lookahead=18),
    }
    return blocks(make(geometry, guide=guides[strategy]))


@pytest.mark.parametrize("strategy", ["anchor", "lookahead"])
def test_the_end_steers_the_first_block(strategy: str) -> None:
    assert (ends(strategy, 1)[0] - ends(strategy, 2)[0]).abs().max() > 1e-3


def test_by_chunk_the_end_is_unknown_until_its_block() -> None:
    one, other = ends("chunk", 1), ends("chunk", 2)
    assert all(torch.equal(a, b) for a, b in zip(one[:-1], other[:-1], strict=True))
    assert (one[-1] - other[-1]).abs().max() > 1e-3


def test_vace_of_strength_0_equals_none() -> None:
    geometry = clip()
    for lookahead in (0, 18):
        guide = Guide(context=encoded(context_of(geometry)), lookahead=lookahead, strength=0.0)
        assert torch.equal(whole(make(geometry, guide=guide)), whole(make(geometry)))
        assert not torch.equal(whole(make(geometry, guide=evolve(guide, strength=1.0))), whole(make(geometry)))


def test_lookahead_sees_no_further_than_it_is_told() -> None:
    geometry = clip(45)
    near, far = context_of(geometry), context_of(geometry)
    far[:, 9:] += 1
    first = [blocks(make(geometry, guide=Guide(context=encoded(c), lookahead=6)))[0] for c in (near, far)]
    assert torch.equal(*first)
    beyond = [blocks(make(geometry, guide=Guide(context=encoded(c), lookahead=7)))[0] for c in (near, far)]
    assert not torch.equal(*beyond)


def test_two_passes_of_the_same_prompt_equal_one() -> None:
    twice = make(clip(), sampling=Sampling(STEPS, guidance=4.0), prompts=[prompt(), prompt()])
    torch.testing.assert_close(whole(twice), whole(make(clip())), atol=1e-4, rtol=1e-4)


def test_two_passes_have_caches_of_their_own() -> None:
    rollout = make(clip(), sampling=Sampling(STEPS, guidance=4.0), prompts=[prompt(), prompt("a dog")])
    guided = whole(rollout)
    assert (guided - whole(make(clip()))).abs().max() > 1e-2
    first, second = (cache for _, cache in rollout._branches)
    assert first
    assert second
    assert not torch.equal(first.read(1)[0], second.read(1)[0])


def test_attention_guidance_needs_no_second_pass() -> None:
    guided, plain = make(clip(), prompts=[prompt("a cat", "a dog", Nag())]), make(clip())
    assert guided.total_passes == plain.total_passes
    assert (whole(guided) - whole(plain)).abs().max() > 1e-2


def test_a_long_clip_keeps_its_sink_and_no_more_memory() -> None:
    geometry = clip(161, lead=1)
    rollout = make(geometry, guide=Guide(known={0: latents(1, 8), 39: latents(1, 9)}), memory=Memory(6, sink=1))
    (cache,) = (cache for _, cache in rollout._branches)
    assert cache
    before = cache.nbytes
    for event in rollout.run():
        if isinstance(event, Made) and event.block.index >= 1:
            assert {0, 39} <= set(cache.positions), "the first frame and the pinned one stay"
            assert len(cache.positions) <= 7
    assert cache.nbytes == before


def test_relative_positions_differ_only_by_the_gap_behind_the_sink() -> None:
    def both(sink: int) -> list[list[Tensor]]:
        return [blocks(make(clip(45), memory=Memory(6, sink, policy))) for policy in ("relative", "absolute")]

    for relative, absolute in zip(*both(sink=0), strict=True):
        torch.testing.assert_close(relative, absolute, atol=2e-5, rtol=1e-5)
    relative, absolute = both(sink=1)
    torch.testing.assert_close(relative[1], absolute[1], atol=1e-5, rtol=1e-5)
    assert (relative[3] - absolute[3]).abs().max() > 1e-4, "after eviction, the sink has come nearer"


def test_first_block_may_have_steps_of_its_own() -> None:
    four = make_schedule((1000, 750, 500, 250), 5.0)
    rollout = make(clip(), sampling=Sampling(STEPS, first_schedule=four))
    stages = [event.stage if isinstance(event, Step) else "made" for event in rollout.run()]
    assert stages[:5] == ["denoising"] * 4 + ["made"]
    assert stages[5:9] == ["remembering", "denoising", "denoising", "made"]
