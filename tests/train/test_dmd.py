"""Distribution matching: the loss is the formula, its gradient the direction, and two networks learn side by side."""

from __future__ import annotations

from contextlib import closing
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from attrs import evolve
from tiny import LATENTS, sentences, tiny_clips, tiny_dit
from torch import Generator, Tensor

from sfserver.engine.noise import make_schedule
from sfserver.model.dit import Dit
from sfserver.model.rope import RopeTable
from sfserver.train.bidirectional import BidirectionalStage, Told, noised
from sfserver.train.dmd import CriticStage, GeneratorStage, Teacher, direction, dmd_loss
from sfserver.train.loop import Beside, Pace, averages_of, train
from sfserver.train.self_rollout import Rolling

SCHEDULE = make_schedule((1000, 500), 5.0)
NEGATIVE = torch.zeros(4, 8)
PACE = Pace(steps=6, learning_rate=1e-3, checkpoint_steps=3)


def rolling(batch: int = 2, end_share: float = 1.0) -> Rolling:
    pools = (tiny_clips(32),)
    return Rolling(pools, sentences(), SCHEDULE, batch=batch, end_share=end_share, dtype=torch.float32)


def generator_stage(end_share: float = 1.0, told: Told = "clean") -> GeneratorStage:
    teacher = Teacher(tiny_dit(1, 0.05).requires_grad_(False), NEGATIVE, told=told)
    return GeneratorStage(tiny_dit(2, 0.05), rolling(end_share=end_share), teacher, tiny_dit(3, 0.05))


def seeded(seed: int = 5) -> Generator:
    return torch.Generator().manual_seed(seed)


@torch.no_grad()
def loss_written_out(stage: GeneratorStage, random: Generator, told: Told, with_end: bool) -> float:
    """From the draws of `random` to the number, with nothing of `dmd` in it."""
    drawn = stage.rolling.draw(random, torch.device("cpu"))
    made = stage.rolling.made(
        stage.network, drawn, stage.rolling.noise(drawn, random), stage.rolling.passes_drawn(random), "none"
    )
    clean = drawn.latents.clean
    clips = torch.cat([clean[:, :1], made, *([clean[:, -1:]] if with_end else [])], 1)
    u, noise = torch.rand(len(clips), generator=random), torch.randn(clips.shape, generator=random)
    total = 0.0
    for n in range(len(clips)):
        sigma = min(max(5.0 * float(u[n]) / (1 + 4.0 * float(u[n])), 0.02), 0.98)
        x = (1 - sigma) * clips[n] + sigma * noise[n]
        t = torch.full((clips.shape[1],), 1000 * sigma)
        if told == "clean":
            for key in (0, LATENTS - 1) if with_end else (0,):
                x[key], t[key] = clips[n, key], 0.0
        rotation = RopeTable(32, clips.shape[1], 2, 2).at(0, clips.shape[1])

        def answer(dit: Dit, text: Tensor, x=x, t=t, rotation=rotation, sigma=sigma) -> np.ndarray:
            flow = dit(x[None], t[None], dit.embed_prompt(text[None]), rotation)[0]
            return (x - sigma * flow)[1 : LATENTS - 1].double().numpy()

        text = sentences()[drawn.latents.sentence[n]]
        c, u_ = answer(stage.teacher.dit, text), answer(stage.teacher.dit, NEGATIVE)
        real, fake = c + 3.0 * (c - u_), answer(stage.critic, text)
        of_made = made[n].double().numpy()
        g = (fake - real) / np.abs(of_made - real).mean()
        total += float((g**2).mean()) / len(clips)
    return 0.5 * total


@pytest.mark.parametrize("told", ["clean", "noisy"])
@pytest.mark.parametrize("with_end", [True, False])
def test_the_loss_is_the_formula_written_out(told: Told, with_end: bool) -> None:
    stage = generator_stage(float(with_end), told)
    expected = loss_written_out(stage, seeded(), told, with_end)
    assert float(stage.loss(seeded()).detach()) == pytest.approx(expected, rel=1e-4)


def test_the_control_other_guidance_is_another_loss() -> None:
    stage = generator_stage()
    other = evolve(stage, teacher=evolve(stage.teacher, guidance=1.0))
    expected = loss_written_out(stage, seeded(), "clean", True)
    assert float(other.loss(seeded()).detach()) != pytest.approx(expected, rel=1e-2)


def test_the_gradient_is_the_direction_over_the_number_of_values() -> None:
    made = torch.randn(3, 2, 4, 5, generator=seeded()).requires_grad_()
    fake, real = torch.randn(2, 2, 4, 5, generator=seeded(6))
    g = direction(made[0].detach(), fake, real)
    dmd_loss(made[0], g).backward()
    assert made.grad is not None
    torch.testing.assert_close(made.grad[0], g / g.numel())


def test_a_step_against_it_goes_from_the_critic_s_opinion_to_the_teacher_s() -> None:
    made, real = torch.randn(2, 3, 4, generator=seeded()), torch.randn(2, 3, 4, generator=seeded(6))
    after = made - 0.1 * direction(made, fake=made, real=real)
    assert (after - real).abs().mean() < (made - real).abs().mean()


def test_where_both_agree_nothing_moves() -> None:
    made = torch.randn(2, 3, 4, generator=seeded())
    assert float(direction(made, made, made).abs().max()) == 0.0


def test_each_stage_trains_its_own_network_alone() -> None:
    stage = generator_stage()
    critic = CriticStage(stage.critic, stage.network, stage.rolling)
    stage.loss(seeded()).backward()
    assert all(p.grad is None for dit in (stage.critic, stage.teacher.dit) for p in dit.parameters())
    assert all(p.grad is not None for p in stage.network.parameters())
    stage.network.zero_grad()
    critic.loss(seeded()).backward()
    assert all(p.grad is None for p in stage.network.parameters())
    assert all(p.grad is not None for p in stage.critic.parameters())


@torch.no_grad()
def test_what_is_told_clean_stays_and_the_rest_is_noisy() -> None:
    clips = tiny_clips(3).clean
    noisy = noised(clips, (0, LATENTS - 1), "clean", 5.0, seeded())
    for key in (0, LATENTS - 1):
        assert torch.equal(noisy.x[:, key], clips[:, key])
        assert float(noisy.t[:, key].abs().max()) == 0.0
    assert float((noisy.x - clips)[:, 1:-1].abs().mean()) > 0.01
    plain = noised(clips, (0, LATENTS - 1), "noisy", 5.0, seeded())
    assert float((plain.x - clips)[:, 0].abs().mean()) > 0.01
    assert float(plain.t.min()) >= 20.0


@torch.no_grad()
def judged(stage: CriticStage | BidirectionalStage) -> float:
    """The loss on two fixed batches."""
    fixed = evolve(stage, rolling=rolling(32))
    return sum(float(fixed.loss(seeded(n))) for n in range(2)) / 2


def learn(stage: CriticStage | BidirectionalStage, folder: Path) -> None:
    with closing(train(stage, Pace(40, 3e-3, 10, checkpoint_steps=1000), folder)) as reports:
        for _ in reports:
            pass


def test_the_critic_learns_what_the_generator_makes(tmp_path: Path) -> None:
    stage = CriticStage(tiny_dit(3), tiny_dit(2, 0.05), rolling(8))
    before = judged(stage)
    learn(stage, tmp_path)
    assert judged(stage) < 0.8 * before


def test_a_bidirectional_teacher_learns_clips(tmp_path: Path) -> None:
    stage = BidirectionalStage(tiny_dit(1), rolling(8), NEGATIVE)
    before = judged(stage)
    learn(stage, tmp_path)
    assert judged(stage) < 0.8 * before


def run(folder: Path, stop_after: int | None = None) -> list[tuple[float, float]]:
    stage = generator_stage()
    beside = Beside(CriticStage(stage.critic, stage.network, stage.rolling), evolve(PACE, learning_rate=2e-3), 2)
    with closing(train(stage, PACE, folder, seed=3, beside=beside)) as reports:
        return [(report.loss, report.beside_loss) for report in islice(reports, stop_after)]


def test_two_networks_go_on_bit_by_bit(tmp_path: Path) -> None:
    whole = run(tmp_path / "whole")
    assert run(tmp_path / "broken", stop_after=2) + run(tmp_path / "broken") == whole
    for name, value in averages_of(tmp_path / "whole").items():
        assert torch.equal(value, averages_of(tmp_path / "broken")[name]), name


def test_the_control_a_critic_that_was_forgotten_is_noticed(tmp_path: Path) -> None:
    whole = run(tmp_path / "whole")
    first = run(tmp_path / "broken", stop_after=2)
    path = tmp_path / "broken" / "checkpoint.pt"
    state = torch.load(path, weights_only=True)
    state["beside"][0]["weights"] = tiny_dit(3, 0.05).state_dict()
    torch.save(state, path)
    assert first + run(tmp_path / "broken") != whole
