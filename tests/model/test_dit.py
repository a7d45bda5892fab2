"""Laws of the transformer that hold for any weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import COLUMNS, ROWS, at, latents, prompt, table, toy_dit
from torch import Tensor

from sfserver.model.attention import attend
from sfserver.model.cache import CacheShape, KvCache
from sfserver.model.config import TOY, WAN_1_3B, WAN_14B, DitConfig, from_official
from sfserver.model.dit import EAGER, Dit, How, Nag, TextKv, guide_attention

FULL_SIZE = Path(__file__).parents[3] / "shared" / "reference" / "keys_fullsize.json"


@settings(max_examples=12, deadline=None)
@given(sizes=st.lists(st.integers(1, 3), min_size=1, max_size=4))
def test_cached_passes_equal_one_masked_block_causal_pass(sizes: list[int]) -> None:
    dit, count = toy_dit(), sum(sizes)
    x, text, rope = latents(count), dit.embed_prompt(prompt()), table(count)
    tokens = ROWS * COLUMNS
    block_of = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes) * tokens)
    sees = block_of[:, None] >= block_of[None]

    def masked(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if k.shape[1] != len(sees):
            return attend(q, k, v)  # the prompt
        q, k, v = (z.transpose(1, 2) for z in (q, k, v))
        return torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=sees).transpose(1, 2)

    whole = dit(x, at(0.0), text, rope.at(0, count), how=How(attend=masked))
    cache = KvCache(CacheShape(TOY.layers, TOY.heads, TOY.head_dim, tokens, window=count), rope)
    blocks = []
    for block in x.split(sizes, dim=1):
        cache.seat(sum(b.shape[1] for b in blocks), block.shape[1])
        blocks.append(dit(block, at(0.0), text, cache.rotation, cache))
    torch.testing.assert_close(torch.cat(blocks, dim=1), whole, atol=2e-5, rtol=1e-5)


def test_mask_of_the_law_above_matters() -> None:
    dit, text, rope = toy_dit(), toy_dit().embed_prompt(prompt()), table(4)
    changed = latents(4).clone()
    changed[:, 3] += 1
    first = [dit(x, at(0.0), text, rope.at(0, 4))[:, 0] for x in (latents(4), changed)]
    assert (first[0] - first[1]).abs().max() > 1e-3, "without a mask, the past sees the future"


def test_one_timestep_for_all_equals_one_for_each() -> None:
    dit = toy_dit()
    x, text, rotation = latents(3), dit.embed_prompt(prompt()), table(3).at(0, 3)
    torch.testing.assert_close(dit(x, at(937.5), text, rotation), dit(x, at(937.5, 3), text, rotation))


def test_timesteps_are_not_rounded() -> None:
    dit = toy_dit()
    x, text, rotation = latents(1), dit.embed_prompt(prompt()), table(1).at(0, 1)
    assert (dit(x, at(937.5), text, rotation) - dit(x, at(937.0), text, rotation)).abs().max() > 1e-3


def test_text_padding_is_attended_to() -> None:
    dit = toy_dit()
    embeds = prompt(rows=TOY.text_len - 4)
    unpadded = [TextKv(*block.cross_attn.embed(dit.text_embedding(embeds))) for block in dit.blocks]
    x, rotation = latents(1), table(1).at(0, 1)
    with_padding = dit(x, at(500.0), dit.embed_prompt(embeds), rotation)
    assert (with_padding - dit(x, at(500.0), unpadded, rotation)).abs().max() > 1e-3
    explicit = torch.nn.functional.pad(embeds, (0, 0, 0, 4))
    assert torch.equal(with_padding, dit(x, at(500.0), dit.embed_prompt(explicit), rotation))


def flow_with(negative: Tensor | None, nag: Nag | None = None) -> Tensor:
    dit = toy_dit()
    return dit(latents(2), at(500.0), dit.embed_prompt(prompt(0), negative, nag), table(2).at(0, 2))


def test_attention_guidance_of_scale_1_is_the_plain_model() -> None:
    torch.testing.assert_close(flow_with(prompt(1), Nag(scale=1.0)), flow_with(None), atol=1e-5, rtol=1e-5)


def test_attention_guidance_away_from_the_prompt_itself_changes_nothing() -> None:
    torch.testing.assert_close(flow_with(prompt(0), Nag(scale=11.0)), flow_with(None), atol=1e-4, rtol=1e-4)


def test_attention_guidance_steers() -> None:
    assert (flow_with(prompt(1)) - flow_with(None)).abs().max() > 1e-2
    assert (flow_with(prompt(1)) - flow_with(prompt(2))).abs().max() > 1e-2


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), scale=st.floats(1, 30), tau=st.floats(1, 4))
def test_attention_guidance_grows_no_token_beyond_tau(seed: int, scale: float, tau: float) -> None:
    z, z_negative = torch.randn(2, 1, 7, 12, generator=torch.Generator().manual_seed(seed))
    guided = guide_attention(z, z_negative, Nag(scale, tau, alpha=1.0).as_tensor())
    assert (guided.abs().sum(-1) <= tau * z.abs().sum(-1) * (1 + 1e-4)).all()


def test_attention_guidance_of_nothing_is_nothing() -> None:
    nothing = torch.zeros(1, 2, 12)
    assert torch.equal(guide_attention(nothing, nothing, Nag().as_tensor()), nothing)


def test_bfloat16_keeps_time_gates_and_residual_stream_in_float32() -> None:
    dit = Dit(TOY).set_compute_dtype(torch.bfloat16)
    narrow = {name for name, p in dit.named_parameters() if p.dtype == torch.bfloat16}
    assert {name.split(".")[0] for name in narrow} == {"text_embedding", "blocks"}
    assert not [name for name in narrow if "modulation" in name or "norm3" in name]
    dit.load_state_dict(toy_dit().state_dict())
    text = dit.embed_prompt(prompt())
    flow = dit(latents(2), at(937.5), text, table(2).at(0, 2))
    assert flow.dtype == torch.float32
    exact = toy_dit()(latents(2), at(937.5), toy_dit().embed_prompt(prompt()), table(2).at(0, 2))
    assert (flow - exact).abs().mean() < 0.02 * exact.std()


@pytest.mark.parametrize("config", [WAN_1_3B, WAN_14B], ids=["1.3B", "14B"])
def test_full_size_has_as_many_parameters_as_published(config: DitConfig) -> None:
    with torch.device("meta"):
        parameters = sum(p.numel() for p in Dit(config).parameters())
    assert parameters == {1536: 1_418_996_800, 5120: 14_288_491_584}[config.dim]


def test_full_size_names_and_shapes_are_the_checkpoint_s() -> None:
    if not FULL_SIZE.is_file():
        pytest.skip(f"no list of tensors: {FULL_SIZE} does not exist")
    published = json.loads(FULL_SIZE.read_text("utf-8"))["wan2.1_t2v_1.3B_dit"]
    with torch.device("meta"):
        ours = {name: list(p.shape) for name, p in Dit(WAN_1_3B).named_parameters()}
    assert ours == published


def test_official_config_is_understood() -> None:
    official = {"dim": 1536, "ffn_dim": 8960, "num_heads": 12, "num_layers": 30, "model_type": "t2v", "text_len": 512}
    assert from_official(official) == WAN_1_3B
    with pytest.raises(KeyError, match="num_heads"):
        from_official({"dim": 1536, "ffn_dim": 8960, "num_layers": 30})
    with pytest.raises(ValueError, match="7 heads do not divide"):
        evolve(WAN_1_3B, heads=7)


def test_a_pass_leaves_nothing_behind_in_the_modules() -> None:
    dit = toy_dit()
    before = {name: id(value) for name, value in vars(dit.blocks[0].self_attn).items()}
    buffers = len(list(dit.buffers()))
    dit(latents(1), at(1.0), dit.embed_prompt(prompt()), table(1).at(0, 1), how=EAGER)
    assert {name: id(value) for name, value in vars(dit.blocks[0].self_attn).items()} == before
    assert len(list(dit.buffers())) == buffers == 0
