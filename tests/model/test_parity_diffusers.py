"""The same weights in diffusers' implementation of the same networks, carried over by our own key maps."""

from __future__ import annotations

import pytest
import torch
from networks import ROWS, at, latents, prompt, random_weights, table
from torch import Tensor, nn

from sfserver.model.config import TOY, TOY_VACE
from sfserver.model.dit import Dit
from sfserver.model.vace import Vace
from sfserver.weights.dialects import dit_name

diffusers = pytest.importorskip("diffusers", reason="the test extra is not installed")

ATOL = 5e-5
FRAMES = 4
SIZES = {
    "num_attention_heads": TOY.heads,
    "attention_head_dim": TOY.head_dim,
    "text_dim": TOY.text_dim,
    "freq_dim": TOY.freq_dim,
    "ffn_dim": TOY.ffn_dim,
    "num_layers": TOY.layers,
}


def renamed(theirs: nn.Module) -> dict[str, Tensor]:
    return {dit_name(name): value for name, value in theirs.state_dict().items()}


def padded_prompt() -> Tensor:
    return nn.functional.pad(prompt(), (0, 0, 0, TOY.text_len - prompt().shape[1]))


@pytest.mark.parametrize("t", [1000.0, 937.5, 625.0])
def test_transformer_equals_diffusers(t: float) -> None:
    theirs = random_weights(diffusers.WanTransformer3DModel(**SIZES), 5)
    ours = Dit(TOY)
    ours.load_state_dict(renamed(theirs))
    x = latents(FRAMES)
    flow = ours(x, at(t), ours.embed_prompt(prompt()), table(FRAMES).at(0, FRAMES))
    (expected,) = theirs(x.transpose(1, 2), torch.tensor([t]), padded_prompt(), return_dict=False)
    torch.testing.assert_close(flow, expected.transpose(1, 2), atol=ATOL, rtol=1e-5)


@pytest.mark.parametrize("strength", [1.0, 0.5])
def test_transformer_with_vace_equals_diffusers(strength: float) -> None:
    layers = list(TOY_VACE.vace_layers)
    theirs = random_weights(diffusers.WanVACETransformer3DModel(**SIZES, vace_layers=layers), 6)
    weights = renamed(theirs)
    branch = {name: weights.pop(name) for name in list(weights) if name.startswith("vace_")}
    dit, vace = Dit(TOY_VACE), Vace(TOY_VACE)
    dit.load_state_dict(weights)
    vace.load_state_dict(branch)

    x, t, rotation = latents(FRAMES), at(833.333), table(FRAMES).at(0, FRAMES)
    context = torch.randn(1, FRAMES, 96, *x.shape[-2:], generator=torch.Generator().manual_seed(1))
    assert x.shape[-2] == 2 * ROWS
    text = vace.embed_prompt(dit.embed_text(prompt()))
    hints = vace(dit.embed_latents(x), dit.embed_time(t).blocks, context, text, rotation)
    flow = dit(x, t, dit.embed_prompt(prompt()), rotation, hints=[strength * hint for hint in hints])
    (expected,) = theirs(
        x.transpose(1, 2),
        t[0],
        padded_prompt(),
        control_hidden_states=context.transpose(1, 2),
        control_hidden_states_scale=torch.full((len(layers),), strength),
        return_dict=False,
    )
    torch.testing.assert_close(flow, expected.transpose(1, 2), atol=ATOL, rtol=1e-5)


def test_parity_would_notice_a_swapped_norm() -> None:
    theirs = random_weights(diffusers.WanTransformer3DModel(**SIZES), 5)
    ours = Dit(TOY)
    weights = renamed(theirs)
    weights["blocks.0.norm3.weight"] = weights["blocks.0.norm3.weight"].flip(0)
    ours.load_state_dict(weights)
    flow = ours(latents(FRAMES), at(625.0), ours.embed_prompt(prompt()), table(FRAMES).at(0, FRAMES))
    (expected,) = theirs(latents(FRAMES).transpose(1, 2), torch.tensor([625.0]), padded_prompt(), return_dict=False)
    assert (flow - expected.transpose(1, 2)).abs().max() > 10 * ATOL
