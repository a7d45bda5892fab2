"""Laws of the rollout over clips of any shape: what a strategy adds to nothing is nothing, and nothing depends on when.

Each law is held against random sizes, lengths, blocks, windows and sinks, on toy networks.
"""

from __future__ import annotations

from typing import Any

import attrs
import numpy as np
import pytest
import torch
import toy
from attrs import frozen
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sfserver.engine.conditioning import Still, Strategy, guide, plan_clip
from sfserver.engine.geometry import Geometry, plan
from sfserver.engine.guide import Guide, encoded
from sfserver.engine.noise import make_schedule, seeded_noise
from sfserver.engine.rollout import Made, Memory, Networks, Prompt, Rollout, Sampling
from sfserver.model.rope import RopeTable

STEPS = make_schedule((1000, 500), 5.0)
SEEDS = st.integers(0, 2**63 - 1)


@frozen
class Shape:
    """What is random about a clip."""

    width: int
    height: int
    num_frames: int
    per_block: int
    memory: Memory
    lead: bool
    """Its first frame is given."""

    def plan(self) -> Geometry:
        return plan(self.width, self.height, self.num_frames, self.per_block, [1] if self.lead else [])

    def latents(self, count: int, seed: int) -> Tensor:
        return torch.randn(self.plan().latent_shape(count), generator=torch.Generator().manual_seed(seed))

    def context(self, seed: int) -> Tensor:
        size = (1, self.plan().latents, 96, self.height // 8, self.width // 8)
        return torch.randn(size, generator=torch.Generator().manual_seed(seed))

    def known(self) -> dict[int, Tensor]:
        return {0: self.latents(1, 8)} if self.lead else {}


@st.composite
def shapes(draw: st.DrawFn, min_frames: int = 3, max_frames: int = 45) -> Shape:
    per_block, sink = draw(st.integers(1, 3)), draw(st.integers(0, 2))
    return Shape(
        width=16 * draw(st.integers(1, 3)),
        height=16 * draw(st.integers(1, 3)),
        num_frames=draw(st.integers(min_frames, max_frames)),
        per_block=per_block,
        memory=Memory(sink + per_block + draw(st.integers(0, 5)), sink),
        lead=draw(st.booleans()),
    )


def prompt() -> Prompt:
    loaded, embeds = toy.weights(), toy.embed_prompt("a cat")
    assert loaded.vace
    return Prompt(loaded.dit.embed_prompt(embeds), loaded.vace.embed_prompt(loaded.dit.embed_text(embeds)))


def make(shape: Shape, seed: int, told: Guide, vace: bool = True, geometry: Geometry | None = None) -> Rollout:
    geometry = geometry or shape.plan()
    networks = Networks(toy.weights().dit, toy.weights().vace if vace else None)
    return Rollout(networks, geometry, Sampling(STEPS), [prompt()], seeded_noise(seed, geometry), told, shape.memory)


def made(rollout: Rollout) -> list[Tensor]:
    return [event.latents for event in rollout.run() if isinstance(event, Made)]


def whole(rollout: Rollout) -> Tensor:
    return torch.cat(made(rollout), dim=1)


class PlainCache:
    """Keys and values in order of time, copied together anew for every pass."""

    relative = False

    def __init__(self, memory: Memory) -> None:
        self.memory = memory
        self.held: dict[int, dict[int, tuple[Tensor, Tensor]]] = {}
        """By latent, then by layer."""
        self.present = range(0)

    def begin(self, start: int, count: int) -> None:
        """Of the latents before the block, the first and the latest stay, as many as the window has room for."""
        self.present = range(start, start + count)
        past = [position for position in self.held if position < start]
        stay = past[: self.memory.sink], past[self.memory.sink :]
        room = self.memory.window - count - len(stay[0])
        kept = {*stay[0], *stay[1][max(0, len(stay[1]) - room) :]}
        self.held = {position: layers for position, layers in self.held.items() if position in kept}
        self.held |= {position: {} for position in self.present}

    def extend(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        for position, *pair in zip(self.present, *(x.chunk(len(self.present), dim=1) for x in (k, v)), strict=True):
            self.held[position][layer] = (pair[0], pair[1])
        keys, values = zip(*(layers[layer] for layers in self.held.values()), strict=True)
        return torch.cat(keys, dim=1), torch.cat(values, dim=1)


@torch.no_grad()
def plain(shape: Shape, seed: int) -> Tensor:
    """The published loop from a given first latent or none: denoise a block, remember it clean, go on to the next."""
    geometry, cache, text = shape.plan(), PlainCache(shape.memory), prompt().text
    table = RopeTable(toy.PRESET.dit.head_dim, geometry.latents, geometry.rows, geometry.columns)
    noise, done = seeded_noise(seed, geometry), []

    def flow(x: Tensor, t: float, start: int) -> Tensor:
        cache.begin(start, x.shape[1])
        rotation = table.at(start, x.shape[1])
        return toy.weights().dit(x, torch.full((1, 1), t), text, rotation, cache)  # pyright: ignore[reportArgumentType]

    for block in geometry.blocks:
        x = shape.known()[0] if block.given else noise(block.index, 0)
        for i, t in enumerate(() if block.given else STEPS.timesteps):
            clean = x - STEPS.sigmas[i] * flow(x, t, block.start)
            x = clean
            if i + 1 < len(STEPS):
                sigma = STEPS.sigmas[i + 1]
                x = (1 - sigma) * clean + sigma * noise(block.index, i + 1)
        flow(x, 0.0, block.start)
        done.append(x)
    return torch.cat(done, dim=1)


@settings(max_examples=15, deadline=None)
@given(shape=shapes(), seed=SEEDS)
def test_anchors_without_further_keyframes_are_the_plain_rollout(shape: Shape, seed: int) -> None:
    """By way of the strategy as requests give it, from a first keyframe or from none."""
    keyframes = [toy.Keyframe(0, toy.picture(0))] if shape.lead else []
    strategy, preset = Strategy.parse("anchor", has_vace=True), attrs.evolve(toy.PRESET, per_block=shape.per_block)
    geometry = plan_clip(shape.width, shape.height, shape.num_frames, keyframes, preset, strategy)
    stills = [Still(at, latent, tuple(keyframes)) for at, latent in shape.known().items()]
    told = guide(strategy, geometry, stills, None)
    torch.testing.assert_close(
        whole(make(shape, seed, told, geometry=geometry)), plain(shape, seed), atol=5e-5, rtol=1e-4
    )


@settings(max_examples=8, deadline=None)
@given(shape=shapes(min_frames=13), seed=SEEDS, further=st.integers(2, 3))
def test_a_further_keyframe_makes_another_clip(shape: Shape, seed: int, further: int) -> None:
    """The control of the law above."""
    told = Guide(known={**shape.known(), further: shape.latents(1, 9)})
    assert (whole(make(shape, seed, told)) - plain(shape, seed)).abs().max() > 1e-2


@st.composite
def vace_guides(draw: st.DrawFn, shape: Shape) -> Guide:
    """What the branch may be told: of all latents or some, ahead or not, with keyframes in the cache or without."""
    count = shape.plan().latents
    places = st.sets(st.integers(0, count - 1), min_size=1)
    anchored = draw(places) if draw(st.booleans()) else set()
    return Guide(
        known={**shape.known(), **{place: shape.latents(1, place) for place in anchored if place or shape.lead}},
        context=encoded(shape.context(draw(st.integers(0, 99)))),
        told=frozenset(draw(places)) if draw(st.booleans()) else None,
        lookahead=draw(st.integers(0, 20)),
    )


@settings(max_examples=15, deadline=None)
@given(data=st.data(), shape=shapes(max_frames=29), seed=SEEDS)
def test_vace_of_strength_0_is_no_vace(data: st.DataObject, shape: Shape, seed: int) -> None:
    told = data.draw(vace_guides(shape))
    silenced = whole(make(shape, seed, attrs.evolve(told, strength=0.0)))
    assert torch.equal(silenced, whole(make(shape, seed, attrs.evolve(told, context=None))))
    assert torch.equal(silenced, whole(make(shape, seed, told, vace=False)))


@settings(max_examples=8, deadline=None)
@given(shape=shapes(min_frames=9, max_frames=29), seed=SEEDS, lookahead=st.integers(0, 20))
def test_vace_of_strength_1_is_not(shape: Shape, seed: int, lookahead: int) -> None:
    """The control of the law above."""
    told = Guide(shape.known(), encoded(shape.context(1)), lookahead=lookahead)
    assert not torch.equal(whole(make(shape, seed, told)), whole(make(shape, seed, told, vace=False)))


@settings(max_examples=15, deadline=None)
@given(data=st.data(), shape=shapes(max_frames=29), seed=SEEDS)
def test_a_rollout_that_is_closed_at_any_time_goes_on_to_the_same_bytes(
    data: st.DataObject, shape: Shape, seed: int
) -> None:
    told = data.draw(vace_guides(shape))
    undisturbed, rollout, parts = whole(make(shape, seed, told)), make(shape, seed, told), []
    for stop_after in data.draw(st.lists(st.integers(0, 9), max_size=3)):
        run = rollout.run()
        for _ in range(stop_after):
            event = next(run, None)
            parts += [event.latents] if isinstance(event, Made) else []
        run.close()
    assert torch.equal(torch.cat([*parts, *made(rollout)], dim=1), undisturbed)


@settings(max_examples=5, deadline=None)
@given(
    num_frames=st.integers(3, 21),
    resume=st.integers(0, 20),
    strategy=st.sampled_from(toy.PRESET.strategies),
    window=st.integers(4, 9),
    seed=SEEDS,
)
def test_a_job_that_is_resumed_gives_the_same_bytes(
    num_frames: int, resume: int, strategy: str, window: int, seed: int
) -> None:
    params: dict[str, Any] = {"strategy": strategy, "window": window}
    job = toy.job(num_frames, (0, num_frames - 1), params=params, seed=seed)
    resumed = attrs.evolve(job, resume_from=min(resume, num_frames))
    undisturbed = {frame.index: frame.image for frame in toy.frames(toy.run(job))}
    again = {frame.index: frame.image for frame in toy.frames(toy.run(resumed))}
    assert list(again) == [index for index in undisturbed if index >= resumed.resume_from]
    assert all(np.array_equal(image, undisturbed[index]) for index, image in again.items())


@pytest.mark.parametrize(("strategy", "steers"), [("anchor", True), ("chunk", False)])
@settings(max_examples=10, deadline=None)
@given(shape=shapes(min_frames=21), seed=SEEDS)
def test_the_last_keyframe_changes_the_first_block_where_it_is_an_anchor_and_not_by_chunk(
    strategy: str, steers: bool, shape: Shape, seed: int
) -> None:
    geometry = shape.plan()
    last = geometry.latents - 1

    def first_block(end: int) -> Tensor:
        known, context = shape.known(), shape.context(3)
        if strategy == "anchor":
            return made(make(shape, seed, Guide({**known, last: shape.latents(1, end)})))[shape.lead]
        context[:, last] = shape.context(end)[:, last]
        return made(make(shape, seed, Guide(known, encoded(context), told=frozenset({0, last}))))[shape.lead]

    one, other = first_block(1), first_block(2)
    assert (one - other).abs().max() > 1e-3 if steers else torch.equal(one, other)
