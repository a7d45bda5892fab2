"""Laws of the VACE branch and of the mask that it is given."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import at, latents, prompt, table, toy_dit, toy_vace

from sfserver.model.config import WAN_1_3B_VACE, WAN_14B_VACE
from sfserver.model.vace import Vace, fold_mask, vace_context

FULL_SIZE = Path(__file__).parents[3] / "shared" / "reference" / "keys_fullsize.json"


def hints_of(context_seed: int) -> list[torch.Tensor]:
    dit, vace = toy_dit(), toy_vace()
    x, t = latents(2), at(937.5)
    generator = torch.Generator().manual_seed(context_seed)
    context = torch.randn(1, 2, 96, *x.shape[-2:], generator=generator)
    text = vace.embed_prompt(dit.embed_text(prompt()))
    return vace(dit.embed_latents(x), dit.embed_time(t).blocks, context, text, table(2).at(0, 2))


def test_hints_of_strength_0_leave_the_model_as_it_is() -> None:
    dit = toy_dit()
    x, t, text, rotation = latents(2), at(937.5), dit.embed_prompt(prompt()), table(2).at(0, 2)
    plain = dit(x, t, text, rotation)
    assert torch.equal(dit(x, t, text, rotation, hints=[0 * hint for hint in hints_of(0)]), plain)
    assert (dit(x, t, text, rotation, hints=hints_of(0)) - plain).abs().max() > 1e-2


def test_hints_depend_on_the_context() -> None:
    assert all((a - b).abs().max() > 1e-2 for a, b in zip(hints_of(0), hints_of(1), strict=True))


def test_one_hint_for_each_layer_that_is_named() -> None:
    assert len(hints_of(0)) == len(toy_dit().config.vace_layers)
    assert WAN_1_3B_VACE.vace_layers == tuple(range(0, 30, 2))
    assert WAN_14B_VACE.vace_layers == tuple(range(0, 40, 5))
    dit = toy_dit()
    with pytest.raises(ValueError, match="zip"):
        dit(latents(2), at(1.0), dit.embed_prompt(prompt()), table(2).at(0, 2), hints=hints_of(0)[:1])


@settings(max_examples=20, deadline=None)
@given(latent_count=st.integers(1, 24), kept=st.integers(0, 92))
def test_mask_of_one_cell_equals_the_same_mask_everywhere(latent_count: int, kept: int) -> None:
    frames = 1 + 4 * (latent_count - 1)
    cell = torch.ones(1, frames, 8, 8)
    cell[:, kept % frames] = 0
    inactive = torch.zeros(1, latent_count, 16, 2, 3)
    everywhere = cell.repeat(1, 1, 2, 3)
    by_cell, by_pixel = (vace_context(inactive, inactive, fold_mask(m, latent_count)) for m in (cell, everywhere))
    assert torch.equal(by_cell, by_pixel)


def test_mask_never_sees_a_single_first_frame() -> None:
    mask = torch.ones(1, 81, 8, 8)
    mask[:, [0, 80]] = 0
    assert fold_mask(mask, 21).min() == 1
    mask[:, 77:81] = 0
    assert fold_mask(mask, 21)[:, -1].max() == 0


def test_full_size_names_and_shapes_are_the_checkpoint_s() -> None:
    if not FULL_SIZE.is_file():
        pytest.skip(f"no list of tensors: {FULL_SIZE} does not exist")
    published = json.loads(FULL_SIZE.read_text("utf-8"))["wan2.1_vace_1.3B_extra"]
    with torch.device("meta"):
        ours = {name: list(p.shape) for name, p in Vace(WAN_1_3B_VACE).named_parameters()}
    assert ours == published
