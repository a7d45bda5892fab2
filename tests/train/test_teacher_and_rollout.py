"""Training computes what use computes: the masked pass, the rollout with a graph, and their gradients."""

from __future__ import annotations

import pytest
import torch
from tiny import LATENTS, sentences, tiny_clips, tiny_dit
from torch import Tensor

from sfserver.engine.noise import make_schedule
from sfserver.engine.rollout import Graph
from sfserver.model.cache import CacheShape, GraphCache, KvCache
from sfserver.model.dit import Dit
from sfserver.model.rope import RopeTable
from sfserver.train.self_rollout import (
    Rolling,
    SelfRolloutStage,
    batch_noise,
    clip_geometry,
    ends_after,
    roll_out,
)
from sfserver.train.teacher import TeacherStage, masked, teacher_pass

SCHEDULE = make_schedule((1000, 750, 500, 250), 5.0)


def block_by_block(dit: Dit, text: Tensor, clean: Tensor, noisy: Tensor, t: float, with_end: bool, kind=KvCache):
    """The flow of each noisy latent after the clean ones before it, through a cache."""
    config, batch = dit.config, len(clean)
    shape = CacheShape(
        config.layers, config.heads, config.head_dim, 4, LATENTS, sink=1, pinned=int(with_end), batch=batch
    )
    cache = kind(shape, RopeTable(config.head_dim, LATENTS, 2, 2), dtype=torch.float32)
    keys = dit.embed_prompt(text)

    def run(x: Tensor, t: float) -> Tensor:
        return dit(x, torch.full((batch, 1), t), keys, cache.rotation, cache)

    cache.seat(0, 1)
    run(clean[:, :1], 0.0)
    if with_end:
        cache.seat(LATENTS - 1, 1, pin=True)
        run(clean[:, -1:], 0.0)
    flows = []
    for position in range(1, LATENTS - 1):
        cache.seat(position, 1)
        flows.append(run(noisy[:, position - 1 : position], t))
        cache.seat(position, 1, final=True)
        run(clean[:, position : position + 1], 0.0)
    return torch.cat(flows, 1)


@pytest.mark.parametrize("with_end", [True, False])
@torch.no_grad()
def test_one_masked_pass_equals_block_by_block_through_the_cache(with_end: bool) -> None:
    dit, clips = tiny_dit(stirred=0.05), tiny_clips(3)
    text = sentences()[clips.sentence]
    noisy = torch.randn(3, 2, LATENTS - 2, 16, 4, 4, generator=torch.Generator().manual_seed(1))
    sigma = torch.full((3, 2, LATENTS - 2), 0.7)
    flow = teacher_pass(dit, dit.embed_prompt(text), clips.clean, noisy, sigma, with_end)
    for copy in range(2):
        cached = block_by_block(dit, text, clips.clean, noisy[:, copy], 700.0, with_end)
        torch.testing.assert_close(flow[:, copy], cached, atol=1e-5, rtol=0)


@torch.no_grad()
def test_the_control_without_its_mask_the_pass_is_another() -> None:
    dit, clips = tiny_dit(stirred=0.05), tiny_clips(3)
    text = sentences()[clips.sentence]
    noisy = torch.randn(3, 1, LATENTS - 2, 16, 4, 4, generator=torch.Generator().manual_seed(1))
    table = RopeTable(dit.config.head_dim, LATENTS, 2, 2)
    rows = [0, LATENTS - 1, *range(1, LATENTS - 2), *range(1, LATENTS - 1)]
    x = torch.cat((clips.clean[:, rows[: -(LATENTS - 2)]], noisy[:, 0]), 1)
    t = torch.tensor([[0.0] * (len(rows) - LATENTS + 2) + [700.0] * (LATENTS - 2)]).expand(3, -1)
    see_all = masked(torch.ones(len(rows), len(rows), dtype=torch.bool), 4)
    flow = dit(x, t, dit.embed_prompt(text), table.gather(rows), how=see_all)[:, -(LATENTS - 2) :]
    cached = block_by_block(dit, text, clips.clean, noisy[:, 0], 700.0, with_end=True)
    assert (flow - cached).abs().max() > 1e-3


@torch.no_grad()
def test_a_cache_with_a_graph_answers_what_the_other_answers() -> None:
    dit, clips = tiny_dit(stirred=0.05), tiny_clips(2)
    noisy = torch.randn(2, LATENTS - 2, 16, 4, 4, generator=torch.Generator().manual_seed(1))
    ways = [
        block_by_block(dit, sentences()[clips.sentence], clips.clean, noisy, 900.0, True, kind)
        for kind in (KvCache, GraphCache)
    ]
    torch.testing.assert_close(*ways, atol=0, rtol=0)


def rolled(dit: Dit, graph: Graph, passes: int = 2) -> Tensor:
    clips = tiny_clips(2)
    geometry = clip_geometry(clips.clean)
    return roll_out(
        dit,
        sentences()[clips.sentence],
        {0: clips.clean[:, :1], LATENTS - 1: clips.clean[:, -1:]},
        geometry,
        ends_after(SCHEDULE, passes),
        batch_noise(clips.clean, geometry, torch.Generator().manual_seed(5)),
        graph,
    )


def test_a_rollout_with_a_graph_makes_the_same_latents() -> None:
    dit = tiny_dit(stirred=0.05)
    plain, exits, all_of_it = (rolled(dit, graph).detach() for graph in ("none", "exit", "exit+memory"))
    torch.testing.assert_close(exits, plain, atol=1e-5, rtol=0)
    torch.testing.assert_close(all_of_it, plain, atol=1e-5, rtol=0)


def test_gradient_reaches_what_the_graph_says() -> None:
    """The time embedding at t = 0 is used by keyframes and clean passes alone: only with memory has it a gradient."""
    reached = {}
    for graph in ("exit", "exit+memory"):
        dit = tiny_dit(stirred=0.05)
        clean_time = torch.zeros(1, 1, requires_grad=True)
        plain = dit.embed_time
        dit.embed_time = lambda t, plain=plain, seed=clean_time: plain(t + seed if float(t.max()) == 0 else t)  # type: ignore[method-assign]
        rolled(dit, graph).square().mean().backward()
        reached[graph] = clean_time.grad is not None and float(clean_time.grad.abs().sum()) > 0
    assert reached == {"exit": False, "exit+memory": True}


def test_no_graph_is_kept_in_use() -> None:
    assert not rolled(tiny_dit(), "none").requires_grad


def test_gradients_of_a_rollout_are_those_of_finite_differences() -> None:
    """With memory and a single pass per block all of the computation has a graph, but for latents that are fed back."""
    dit = tiny_dit(stirred=0.05)
    parameter = dit.blocks[1].self_attn.v.weight

    def loss() -> Tensor:
        clips = tiny_clips(1)
        geometry = clip_geometry(clips.clean)
        made = roll_out(
            dit,
            sentences()[clips.sentence],
            {0: clips.clean[:, :1], LATENTS - 1: clips.clean[:, -1:]},
            geometry,
            ends_after(SCHEDULE, 1),
            batch_noise(clips.clean, geometry, torch.Generator().manual_seed(5)),
            "exit+memory",
        )
        return made[:, :1].square().mean()  # the first block: nothing was fed back before it

    loss().backward()
    assert parameter.grad is not None
    step = 0.1  # float32 all the way: a smaller one would measure rounding
    places = parameter.grad.abs().flatten().topk(3).indices.tolist()
    for place in (divmod(place, parameter.shape[1]) for place in places):
        before = parameter.data[place].clone()
        sides = []
        for sign in (1, -1):
            parameter.data[place] = before + sign * step
            sides.append(float(loss().detach()))
        parameter.data[place] = before
        expected = (sides[0] - sides[1]) / (2 * step)
        assert float(parameter.grad[place]) == pytest.approx(expected, rel=2e-2)


@pytest.mark.parametrize("kind", ["teacher", "rollout"])
def test_a_stage_draws_everything_from_its_generator(kind: str) -> None:
    dit, pools = tiny_dit(stirred=0.05), (tiny_clips(16),)
    stage = (
        TeacherStage(dit, pools, sentences(), batch=4)
        if kind == "teacher"
        else SelfRolloutStage(dit, Rolling(pools, sentences(), SCHEDULE, batch=4))
    )
    losses = [float(stage.loss(torch.Generator().manual_seed(seed)).detach()) for seed in (1, 1, 2)]
    assert losses[0] == losses[1] != losses[2]
