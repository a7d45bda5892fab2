"""A recipe's stages, built and run one after the other on clips that a test can hold."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest
import torch
from tiny import sentences, tiny_clips, tiny_dit
from torch import Tensor

from sfserver.engine.noise import make_schedule
from sfserver.errors import UserError
from sfserver.model.dit import Dit
from sfserver.train import run
from sfserver.train.bidirectional import noised
from sfserver.train.dmd import estimate
from sfserver.train.loop import averages_of
from sfserver.train.passes import _AFTER, _BEFORE, Passes
from sfserver.train.place import ALONE
from sfserver.train.recipe import Recipe, read_recipe
from sfserver.train.showing import Showing, held_out
from sfserver.train.stages import Material, build

HEAD = 'model = "self-forcing"\nseed = 1\n'
TEACHER = """
[[stage]]
name = "scores"
kind = "bidirectional"
batch = 2
pace = { steps = 2, learning_rate = 1e-3, warm_up_steps = 1 }
"""
DMD = """
[[stage]]
name = "dmd"
kind = "rollout"
batch = 2
pace = { steps = 2, learning_rate = 1e-3, warm_up_steps = 1 }
dmd = { teacher = "scores", critic_learning_rate = 1e-3, critic_updates = 1 }
"""


def recipe(text: str, folder: Path) -> Recipe:
    path = folder / "toy.toml"
    path.write_text(HEAD + text, "utf-8")
    return read_recipe(path)


def fresh(other: str, frozen: bool) -> Dit:
    dit = tiny_dit(1 if other else 0, 0.05)
    return dit.set_compute_dtype(torch.bfloat16) if frozen else dit


def material(showing: Showing | None = None) -> Material:
    clips = (tiny_clips(8),)
    schedule = make_schedule((1000, 500), 5.0)
    return Material(
        fresh, lambda lengths: clips, sentences(), torch.zeros(4, 8), schedule, 1, ALONE, showing=lambda length: showing
    )


def trained(wanted: Recipe, folder: Path) -> list[run.Progressed]:
    with closing(run.train(wanted, folder, material=material())) as events:
        return list(events)


def test_a_teacher_is_learnt_and_then_scores(tmp_path: Path) -> None:
    events = trained(recipe(TEACHER + DMD, tmp_path), tmp_path)
    assert [event.what for event in events] == ["scores", "scores", "dmd", "dmd"]
    assert all(event.loss == event.loss for event in events)
    assert averages_of(tmp_path / "dmd").keys() == tiny_dit().state_dict().keys()


def test_looking_on_changes_nothing(tmp_path: Path) -> None:
    _, apart = held_out(tiny_clips(20))
    schedule = make_schedule((1000, 500), 5.0)
    showing = Showing(apart, sentences(), lambda x: x[:, :, :3].repeat(1, 1, 1, 8, 8) / 6 + 0.5, schedule)
    plain = DMD.replace("\ndmd =", "\n# ")
    losses = []
    for more in ("", "sheet_steps = 1\n"):
        out = tmp_path / f"sheets{len(losses)}"
        with closing(run.train(recipe(plain + more, tmp_path), out, material=material(showing))) as events:
            losses.append([event.loss for event in events])
        assert len(list(out.rglob("sheets/*.png"))) == (2 if more else 0)
    assert losses[0] == losses[1]


def test_additions_learn_by_a_teacher_that_was_published(tmp_path: Path) -> None:
    text = DMD.replace('"scores"', '"wan-vace"') + "lora_rank = 2\nrecompute = true\n"
    trained(recipe(text, tmp_path), tmp_path)
    kept = torch.load(tmp_path / "dmd" / "checkpoint.pt", weights_only=True)
    assert all(".up" in name or ".down" in name for name in (*kept["weights"], *kept["beside"][0]["weights"]))
    assert any(float(value.abs().max()) > 0 for name, value in kept["weights"].items() if ".up" in name)


def test_teacher_and_critic_share_their_tensors_where_additions_learn(tmp_path: Path) -> None:
    text = DMD.replace('"scores"', '"wan-vace"') + "lora_rank = 2\n"
    built = build(recipe(text, tmp_path).stage[0], {}, material(), lambda name: {}, 0)
    assert built.beside
    stage, critic = built.stage.stage, built.beside.stage.stage  # pyright: ignore[reportAttributeAccessIssue]
    its, other = critic.network.state_dict(), stage.teacher.dit.state_dict()
    assert all(its[name].data_ptr() == other[name].data_ptr() for name in its)


STYLE = TEACHER.replace("batch", 'begins = "wan-vace"\nlora_rank = 2\nbatch')


def test_a_teacher_that_learnt_additions_keeps_them_and_the_critic_begins_with_them(tmp_path: Path) -> None:
    wanted = recipe(STYLE + DMD + "lora_rank = 2\n", tmp_path)
    trained(wanted, tmp_path)
    kept = averages_of(tmp_path / "scores")
    others = {stage.name: stage for stage in wanted.stage}
    built = build(wanted.stage[1], others, material(), lambda name: averages_of(tmp_path / name), 0)
    assert built.beside
    assert all(torch.equal(value, kept[name]) for name, value in built.beside.stage.network.state_dict().items())
    stage = built.stage.stage  # pyright: ignore[reportAttributeAccessIssue]
    x, text = tiny_clips(1).clean, sentences()[:1]
    noisy = noised(x, (0,), "clean", 5.0, torch.Generator().manual_seed(0))
    how = built.rolling.passes.plain()
    assert torch.equal(estimate(stage.teacher.dit, noisy, text, how), estimate(stage.critic, noisy, text, how))
    assert not torch.equal(
        estimate(fresh("wan-vace", True), noisy, text, how), estimate(stage.critic, noisy, text, how)
    )


@pytest.mark.parametrize("graph", ["exit", "exit+memory"])
def test_what_waits_elsewhere_has_the_same_gradient(graph: str, tmp_path: Path) -> None:
    gradients = []
    for more in ("", "recompute = true\noffload = true\n"):
        text = DMD.replace("\ndmd =", "\n# ") + f'{more}lora_rank = 2\ngraph = "{graph}"\n'
        built = build(recipe(text, tmp_path).stage[0], {}, material(), lambda name: {}, 0)
        for parameter in built.stage.network.parameters():
            parameter.data += 0.05
        built.stage.loss(torch.Generator().manual_seed(1)).backward()
        gradients.append([p.grad for p in built.stage.network.parameters()])
    for once, twice in zip(*gradients, strict=True):
        assert float(once.abs().max()) > 0
        torch.testing.assert_close(once, twice, rtol=1e-3, atol=1e-6)


def test_what_waits_elsewhere_comes_for_its_stage_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The matrices that a stage fetches are those that it multiplies with, and no layer's own are looked at."""
    dit = tiny_dit(stirred=0.05)
    x, text = tiny_clips(1).clean, sentences()[:1]
    noisy = noised(x, (0,), "clean", 5.0, torch.Generator().manual_seed(0))
    away = Passes(torch.device("cpu"), offload=True)
    expected = estimate(dit, noisy, text, away.plain())
    names = [f"{name}.weight" for name in (*_BEFORE, *_AFTER)]
    waiting = {id(block.get_parameter(name)) for block in dit.blocks for name in names}
    move = Tensor.to
    monkeypatch.setattr(Tensor, "to", lambda x, *a, **k: move(x, *a, **k) * (2 if id(x) in waiting else 1))
    assert not torch.equal(estimate(dit, noisy, text, away.plain()), expected)


@pytest.mark.parametrize("graph", ["exit", "exit+memory"])
def test_what_is_computed_again_has_the_same_gradient(graph: str, tmp_path: Path) -> None:
    gradients = []
    for recompute in ("false", "true"):
        text = DMD.replace("\ndmd =", "\n# ") + f'recompute = {recompute}\ngraph = "{graph}"\n'
        built = build(recipe(text, tmp_path).stage[0], {}, material(), lambda name: {}, 0)
        built.stage.loss(torch.Generator().manual_seed(1)).backward()
        gradients.append([p.grad for p in built.stage.network.parameters()])
    for once, twice in zip(*gradients, strict=True):
        torch.testing.assert_close(once, twice, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('teacher = "scores"', 'teacher = "nobody"', "no bidirectional stage before it"),
        ('kind = "rollout"', 'kind = "bidirectional"', "learns by no dmd"),
        ('model = "self-forcing"', 'model = "nothing"', "there is no model 'nothing'"),
    ],
)
def test_what_does_not_go_together_is_one_sentence(old: str, new: str, says: str, tmp_path: Path) -> None:
    text = HEAD + TEACHER + DMD
    assert old in text
    (tmp_path / "toy.toml").write_text(text.replace(old, new), "utf-8")
    with pytest.raises(UserError, match=says):
        read_recipe(tmp_path / "toy.toml")
