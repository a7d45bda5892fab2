"""Compiling beside clips: a clip that was rehearsed compiles nothing, one that was not is made as it is."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
import torch
import toy

from sfserver.config import load_config
from sfserver.engine import wan, wan_load
from sfserver.engine.rehearsal import Rehearsals
from sfserver.engine.wan_engine import WanEngine
from sfserver.model.attention import attend


@pytest.fixture
def counters() -> Iterator[Any]:
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    yield torch._dynamo.utils.counters
    torch._dynamo.reset()


@pytest.fixture
def rehearsals() -> Rehearsals:
    """Traced like any compilation, without a C++ compiler behind it."""
    return Rehearsals(attend, toy.CPU, backend="eager")


def engine(rehearsals: Rehearsals) -> WanEngine:
    return WanEngine(toy.engine().info, toy.PRESET, toy.weights(), toy.CPU, rehearsals)


def clip(with_engine: WanEngine, num_frames: int, strategy: str = "anchor", seed: int = 0, **fields: Any) -> np.ndarray:
    params = {"strategy": strategy, "seam": False}
    return toy.pixels(
        toy.run(toy.job(num_frames, (0, num_frames - 1), params=params, seed=seed, **fields), with_engine)
    )


@pytest.mark.parametrize("strategy", ["anchor", "chunk+anchor", "lookahead+anchor"])
def test_a_clip_that_was_rehearsed_compiles_nothing_whatever_its_prompt(
    strategy: str, counters: Any, rehearsals: Rehearsals
) -> None:
    """Frames 25 and 13 are of one kind: a keyframe, blocks of three. 21 has a last block of two."""
    with_engine, plain = engine(rehearsals), toy.engine()
    for num_frames, negative in ((25, ""), (25, "a dog"), (21, "")):
        clip(with_engine, num_frames, strategy, negative_prompt=negative)
        rehearsals.wait()
    graphs, frames = counters["stats"]["unique_graphs"], dict(counters["frames"])
    assert graphs > 0
    assert frames["ok"] == frames["total"], "nothing ran uncompiled for want of room"
    for num_frames, negative, seed in ((25, "", 1), (13, "", 2), (21, "", 3), (25, "a cat", 4), (37, "", 5)):
        made = clip(with_engine, num_frames, strategy, seed, negative_prompt=negative)
        rehearsals.wait()
        assert counters["stats"]["unique_graphs"] == graphs
        eager = clip(plain, num_frames, strategy, seed, negative_prompt=negative)
        assert np.abs(made.astype(int) - eager).max() <= 1
    assert counters["frames"] == frames


def test_the_control_a_kind_that_was_not_rehearsed_is_compiled_for(counters: Any, rehearsals: Rehearsals) -> None:
    with_engine = engine(rehearsals)
    clip(with_engine, 25)
    rehearsals.wait()
    graphs = counters["stats"]["unique_graphs"]
    rehearsals.how = lambda kind: rehearsals._compiled  # pyright: ignore
    rehearsals.begin = lambda kind, play: None  # pyright: ignore
    clip(with_engine, 21)
    assert counters["stats"]["unique_graphs"] > graphs


def test_the_first_clip_is_made_as_it_is_to_the_last_bit(rehearsals: Rehearsals) -> None:
    assert np.array_equal(clip(engine(rehearsals), 13), clip(toy.engine(), 13))
    rehearsals.wait()


def test_a_rehearsal_that_fails_is_not_tried_again_and_clips_are_made(rehearsals: Rehearsals) -> None:
    tried: list[str] = []

    def play(how: Any) -> None:
        tried.append("once")
        raise RuntimeError("no compiler")

    for _ in range(2):
        rehearsals.begin("a kind", play)
        rehearsals.wait()
    assert tried == ["once"]
    assert rehearsals.how("a kind") is rehearsals._eager


def test_compiled_code_is_kept_where_the_next_start_finds_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    wan_load.keep_compiled(tmp_path)
    from torch._inductor.runtime.cache_dir_utils import cache_dir

    assert cache_dir() == str(tmp_path / "compiled")
    wan_load.keep_compiled(tmp_path / "other")
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(tmp_path / "compiled"), "who has set it keeps it"


def test_an_engine_says_that_its_bytes_may_come_from_either_way() -> None:
    versions = {wan.describe(load_config({"compile": name}))[0].version for name in ("asked", "beside")}
    assert len(versions) == 2
    assert attrs.fields_dict(type(load_config()))["compile"].default == "asked"
