"""The model that comes along: the engine as anybody runs it, on keyframes that training never saw."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from attrs import evolve
from sfwire.errors import RequestError

from sfserver.bench.ends import OWN, clips_to_end, end_of
from sfserver.bench.world import HELD_OUT_SEED, Shown, show
from sfserver.config import ServerConfig
from sfserver.engine import small_world, table
from sfserver.engine.base import Engine, Job, Keyframe, checked
from sfserver.train import world
from sfserver.train.codec import SMALL_TAE, new_tae
from sfserver.train.export import export
from sfserver.train.small import SMALL_DIT, SMALL_TEXT, new_dit, new_words

CONFIG = ServerConfig(device="cpu", precision="fp32")


@cache
def engine() -> Engine:
    return small_world.load(CONFIG)


@cache
def shown() -> Shown:
    exact = world.all_verbs(2, 18, torch.Generator().manual_seed(HELD_OUT_SEED + 7))
    return show(engine(), exact)


def test_the_prompt_decides_what_happens_between_the_same_two_pictures() -> None:
    assert shown().obeyed >= 0.6  # a guess would be 0.1


def test_a_clip_arrives_at_its_end_in_motion() -> None:
    exact = clips_to_end(scenes=1)
    assert 0.6 < end_of(show(engine(), exact).pixels, exact.pixels).motion < 1.5


def test_the_measure_of_an_end_sees_one_that_stands_still() -> None:
    exact = clips_to_end(scenes=1).pixels[:2]
    assert end_of(exact, exact).motion == 1
    frozen = exact.clone()
    frozen[:, -1 - OWN : -1] = frozen[:, -2 - OWN : -1 - OWN]
    frozen[:, 1 : -1 - OWN] += 0.01  # something is amiss everywhere
    assert end_of(frozen, exact).motion == 0
    assert end_of(frozen, exact).error > 1


def test_the_control_clips_judged_by_other_prompts_fail() -> None:
    exact = shown().exact
    others = evolve(shown(), exact=evolve(exact, verbs=exact.verbs.roll(1)))
    assert others.obeyed <= 0.2


def test_auto_never_takes_it() -> None:
    info = small_world.describe(CONFIG)
    assert info.available
    with pytest.raises(RequestError, match="no engine is complete"):
        table.choose([info], CONFIG)


def test_a_prompt_of_more_tokens_than_it_reads_is_refused() -> None:
    picture = (shown().exact.pixels[0, 0] * 255).to(torch.uint8).movedim(0, -1).contiguous().numpy()
    job = Job(64, 64, 18, (Keyframe(0, picture), Keyframe(17, picture)), prompt="it jumps over and " * 20)
    with pytest.raises(RequestError, match=f"the model reads {SMALL_DIT.text_len}"):
        list(engine().open(checked(job, engine().info)))


def test_what_training_exports_is_a_folder_that_is_an_engine(tmp_path) -> None:
    random = torch.Generator().manual_seed(0)
    dit, tae = new_dit(SMALL_DIT, random), new_tae(SMALL_TAE, random)
    manifest = export(tmp_path / "mine", dit.state_dict(), SMALL_DIT, tae.state_dict(), new_words())
    assert manifest.total_bytes < 8e6
    assert manifest.components["text"].config["layers"] == SMALL_TEXT.layers
    config = evolve(CONFIG, models_dir=tmp_path)
    assert [info.available for info in table.describe_all(config) if info.id == "mine"] == [True]
    assert table.load("mine", config).info.id == "mine"
