"""Distribution matching: a rolled-out clip is pushed to where a teacher finds it likelier than a critic does.

    x        a clip that the generator rolled out, x_t the same made noisy
    x0_real  what the frozen bidirectional teacher takes for x, seeing x_t, under guidance: c + 3.0 (c - u)
    x0_fake  what the critic takes for x: the same network, trained along on nothing but rolled-out clips
    g        (x0_fake - x0_real) / mean |x - x0_real|
    loss     0.5 mean (x - stopgrad(x - g))^2, whose gradient by x is g over the number of values

No true clip is needed, and none is averaged into its likes: what a caption leaves open stays open. Source: DMD (arXiv
2311.18828, 2405.14867) as Self Forcing (arXiv 2506.08009) has it; five updates of the critic for each of the generator.
"""

from __future__ import annotations

import torch
from attrs import frozen
from torch import Generator, Tensor

from ..model.dit import Dit, How
from .bidirectional import Noised, Told, clip_of, flow_loss, noised, whole_pass
from .passes import device_of, precision
from .self_rollout import Rolling

GUIDANCE = 3.0


@frozen(eq=False)
class Teacher:
    """What finds clips likely: a bidirectional transformer that is not trained here."""

    dit: Dit
    negative: Tensor
    """[T, text_dim], what guidance steps away from."""
    guidance: float = GUIDANCE
    told: Told = "clean"
    """How it, and the critic after it, is told keyframes."""
    shift: float = 5.0

    def estimate(self, noisy: Noised, text: Tensor, how: How) -> Tensor:
        """The clean clips, [B, F, C, H, W], after guidance."""
        towards = estimate(self.dit, noisy, text, how)
        away = estimate(self.dit, noisy, self.negative.to(text).expand(len(text), -1, -1), how)
        return towards + self.guidance * (towards - away)


@torch.no_grad()
def estimate(dit: Dit, noisy: Noised, text: Tensor, how: How) -> Tensor:
    """The clean clips that a network takes noisy ones for, [B, F, C, H, W]."""
    return noisy.x - noisy.sigma * whole_pass(dit, text, noisy, how)


def direction(made: Tensor, fake: Tensor, real: Tensor) -> Tensor:
    """g, [B, ...]: away from it lies what the teacher finds likelier. Where the teacher has nothing to add, 0."""
    distance = (made - real).abs().flatten(1).mean(1).view(-1, *[1] * (made.dim() - 1))
    return ((fake - real) / distance).nan_to_num(0.0, 0.0, 0.0)


def dmd_loss(made: Tensor, g: Tensor) -> Tensor:
    """Moves `made` against g."""
    return 0.5 * ((made - (made - g).detach()) ** 2).mean()


@frozen(eq=False)
class GeneratorStage:
    """The model that is wanted, on its own rollouts, by what teacher and critic say of them."""

    network: Dit
    rolling: Rolling
    teacher: Teacher
    critic: Dit

    def loss(self, random: Generator) -> Tensor:
        rolling = self.rolling
        drawn = rolling.draw(random, device_of(self.network))
        made = rolling.made(
            self.network, drawn, rolling.noise(drawn, random), rolling.passes_drawn(random), rolling.graph
        )
        with torch.no_grad(), precision(made.device, rolling.dtype):
            clips = clip_of(drawn.latents, drawn.known, made.detach())
            noisy = noised(clips, drawn.known, self.teacher.told, self.teacher.shift, random)
            text, how = rolling.text(drawn), rolling.passes.plain()
            fake, real = estimate(self.critic, noisy, text, how), self.teacher.estimate(noisy, text, how)
        there = drawn.made
        of_made = made[:, [position - 1 for position in there]]
        return dmd_loss(of_made, direction(of_made.detach(), fake[:, there], real[:, there]))


@frozen(eq=False)
class CriticStage:
    """The critic learns what the generator makes as it is now: flow matching on clips that come without a graph."""

    network: Dit
    generator: Dit
    rolling: Rolling
    told: Told = "clean"
    shift: float = 5.0

    def loss(self, random: Generator) -> Tensor:
        rolling = self.rolling
        drawn = rolling.draw(random, device_of(self.network))
        with torch.no_grad():
            made = rolling.made(
                self.generator, drawn, rolling.noise(drawn, random), rolling.passes_drawn(random), "none"
            )
        return flow_loss(self.network, rolling.text(drawn), drawn, made, self.told, self.shift, rolling, random)
