"""Stages of a transformer, from what a recipe says of them: what learns, from what, and what learns beside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy

import torch
from attrs import evolve, frozen
from torch import Generator, Tensor, nn

from ..engine.noise import Schedule
from ..model.dit import Dit
from .bidirectional import BidirectionalStage
from .dmd import CriticStage, GeneratorStage, Teacher
from .latents import Latents
from .loop import Beside, Stage, step_random
from .lora import Lora, twin
from .passes import Passes
from .place import Place
from .recipe import DmdRecipe, StageRecipe
from .self_rollout import Rolling, SelfRolloutStage
from .showing import Showing
from .teacher import TeacherStage

LeftBy = Callable[[str], Mapping[str, Tensor]]
"""The averaged weights that a stage of this name has left."""


@frozen(eq=False)
class Material:
    """What stages begin with and learn from."""

    new_dit: Callable[[str, bool], Dit]
    """The transformer as it is before any stage, or with an id that of another model; and whether it will not learn, so
    that it may take less memory."""
    pools: Callable[[Sequence[int]], tuple[Latents, ...]]
    """Clips by their length in frames."""
    sentences: Tensor
    """Embeddings of every caption [S, T, text_dim]."""
    negative: Tensor
    """[T, text_dim], what guidance steps away from."""
    schedule: Schedule
    per_block: int
    place: Place
    dtype: torch.dtype = torch.bfloat16
    showing: Callable[[int], Showing | None] = lambda length: None
    """Clips of a length that are held out, to be looked at; None where there are none."""


@frozen(eq=False)
class Learning:
    """A stage of which `network` alone is trained, averaged and kept."""

    network: nn.Module
    stage: Stage

    def loss(self, random: Generator) -> Tensor:
        return self.stage.loss(random)


@frozen(eq=False)
class Built:
    """A stage, ready to learn."""

    stage: Stage
    dit: Dit
    """The transformer in it."""
    rolling: Rolling
    beside: Beside | None = None


def build(
    recipe: StageRecipe, others: Mapping[str, StageRecipe], material: Material, left_by: LeftBy, seed: int
) -> Built:
    """A stage with its networks as they are before its first step. `others` are those before it."""
    passes = Passes(material.place.device, recipe.recompute, recipe.offload)
    before = left_by(recipe.after) if recipe.after else {}
    dit = material.new_dit(recipe.begins, recipe.lora_rank > 0)
    dit, network = _learning(dit, passes, recipe.lora_rank, before, seed)
    rolling = Rolling(
        material.pools(tuple(recipe.frames)),
        material.sentences,
        material.schedule,
        tuple(recipe.frames.values()),
        recipe.batch,
        material.per_block,
        recipe.graph,
        loud=recipe.loud,
        dtype=material.dtype,
        passes=passes,
    )
    if recipe.kind == "teacher":
        stage: Stage = TeacherStage(dit, rolling.pools, rolling.sentences, rolling.shares, recipe.batch)
    elif recipe.kind == "bidirectional":
        stage = BidirectionalStage(dit, rolling, material.negative)
    else:
        stage = SelfRolloutStage(dit, rolling)
    built = Built(Learning(network, stage), dit, rolling)
    if not recipe.dmd:
        return built
    scores = _scores(recipe, recipe.dmd, others.get(recipe.dmd.teacher), material, left_by, seed)
    return _by_dmd(built, recipe, recipe.dmd, material, scores)


@frozen(eq=False)
class _Scores:
    """Teacher and critic, and what of the critic learns."""

    teacher: Dit
    critic: Dit
    network: nn.Module


def _scores(
    recipe: StageRecipe, dmd: DmdRecipe, taught: StageRecipe | None, material: Material, left_by: LeftBy, seed: int
) -> _Scores:
    """The teacher stays and the critic begins as it. Where additions learn, both are of the same tensors.

    `taught` is the stage that the teacher comes from, None where it was published.
    """
    passes = Passes(material.place.device, recipe.recompute, recipe.offload)
    rank, its = (taught.lora_rank, left_by(taught.name)) if taught else (0, {})
    base = material.new_dit(taught.begins if taught else dmd.teacher, True)
    if its and not rank:
        base.load_state_dict(its)
    if recipe.lora_rank:
        critic = twin(base)
        critic, network = _learning(critic, passes, recipe.lora_rank, its if rank == recipe.lora_rank else {}, seed)
    else:
        critic, network = _learning(deepcopy(base), passes, 0, {}, seed)
    teacher, _ = _learning(base, passes, rank, its, seed) if rank else (passes.settle(base), None)
    return _Scores(teacher.requires_grad_(False), critic, network)


def _by_dmd(built: Built, recipe: StageRecipe, dmd: DmdRecipe, material: Material, scores: _Scores) -> Built:
    teacher = Teacher(scores.teacher, material.negative, dmd.guidance, dmd.told)
    critic = CriticStage(scores.critic, built.dit, built.rolling, dmd.told, teacher.shift)
    pace = evolve(recipe.pace, learning_rate=dmd.critic_learning_rate)
    stage = Learning(built.stage.network, GeneratorStage(built.dit, built.rolling, teacher, scores.critic))
    return evolve(built, stage=stage, beside=Beside(Learning(scores.network, critic), pace, dmd.critic_updates))


def _learning(dit: Dit, passes: Passes, rank: int, before: Mapping[str, Tensor], seed: int) -> tuple[Dit, nn.Module]:
    """The transformer, and what of it learns: all, or additions. `before` are a full stage's weights or additions."""
    if before and "patch_embedding.weight" in before:
        dit.load_state_dict(before)
        before = {}
    if not rank:
        return passes.settle(dit), dit.float().train().requires_grad_(True)
    lora = Lora(passes.settle(dit), rank, step_random(seed, -1))
    if before:
        lora.load_state_dict(before)
    return lora.attach(dit), lora
