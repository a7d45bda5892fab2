"""A first block that is smaller than the others: the first pictures come after less work, and the clip is whole."""

from __future__ import annotations

from typing import Any

import pytest
import toy

from sfserver.engine.base import Chunk
from sfserver.engine.presets import PRESETS
from sfserver.engine.rollout import Rollout
from sfserver.engine.wan import parameters_of


def clip(patch: pytest.MonkeyPatch, **params: object) -> tuple[int, list[int]]:
    """(latents that denoising passes were over until the first pictures came, indices of the clip's frames)."""
    worked_on: list[int] = []
    plain = Rollout._flow

    def counted(self: Rollout, x: Any, t: float, block: Any, view: Any = None, clean: bool = False, **rest: Any) -> Any:
        worked_on.append(0 if clean else x.shape[1])
        return plain(self, x, t, block, view, clean, **rest)

    engine, until_first, frames = toy.engine(), 0, list[int]()
    job = toy.checked(toy.job(25, (0, 24), params={"strategy": "anchor", "seam": False, **params}), engine.info)
    with patch.context() as patched:
        patched.setattr(Rollout, "_flow", counted)
        for event in engine.open(job):
            if isinstance(event, Chunk):
                until_first = until_first or sum(worked_on)
                frames += [frame.index for frame in event.frames]
    return until_first, frames


def test_a_first_block_of_one_latent_comes_after_a_third_of_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    sooner, usual = clip(monkeypatch, first_block=1), clip(monkeypatch)
    assert sooner[1] == usual[1] == list(range(1, 24))
    assert 3 * sooner[0] == usual[0]
    assert clip(monkeypatch, first_block=3) == usual, "the control: what the model was trained on"


def test_a_model_of_one_latent_a_block_has_nothing_to_choose() -> None:
    for preset in PRESETS:
        names = {parameter.name for parameter in parameters_of(preset, has_tae=False)}
        assert ("first_block" in names) == (preset.per_block > 1 and preset.strategies != ("joint",))
