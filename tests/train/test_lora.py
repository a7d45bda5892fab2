"""LoRA: merged equals applied, and nothing but the additions learns."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

import pytest
import torch
from attrs import frozen
from safetensors.torch import save_file
from tiny import LATENTS, TINY, sentences, tiny_clips, tiny_dit
from torch import Tensor

from sfserver.model.dit import Dit
from sfserver.model.rope import RopeTable
from sfserver.train.loop import Pace, averages_of, train
from sfserver.train.lora import CONFIG_NAME, Lora, twin, write_lora
from sfserver.weights.convert import Wish, convert
from sfserver.weights.loading import load_transformer


def random(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def stirred_lora(dit: Dit) -> Lora:
    lora = Lora(dit, 4, random())
    for parameter in lora.parameters():
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=random(1))
    return lora


@torch.no_grad()
def answer(dit: Dit) -> Tensor:
    clips = tiny_clips(2)
    rotation = RopeTable(TINY.head_dim, LATENTS, 2, 2).at(0, LATENTS)
    text = dit.embed_prompt(sentences()[clips.sentence])
    return dit(clips.clean, torch.full((2, 1), 700.0), text, rotation)


def merged(dit: Dit, lora: Lora | None, folder: Path) -> Dit:
    """By the way that every published LoRA goes."""
    source = folder / "base"
    source.mkdir(parents=True)
    (source / "config.json").write_text(
        json.dumps({"num_heads": TINY.heads, "text_len": TINY.text_len, "text_dim": 8, "freq_dim": TINY.freq_dim})
    )
    save_file({name: value.contiguous() for name, value in dit.state_dict().items()}, source / "dit.safetensors")
    loras = ((write_lora(lora, lora.state_dict(), folder / "lora"), 1.0),) if lora else ()
    convert(source, folder / "model", Wish(loras=loras, dtype=torch.float32))
    return load_transformer(folder / "model", None, torch.device("cpu"), torch.float32)[0]


def test_merged_by_convert_equals_applied_in_training(tmp_path: Path) -> None:
    lora = stirred_lora(tiny_dit(stirred=0.05))
    applied = answer(lora.attach(tiny_dit(stirred=0.05)))
    torch.testing.assert_close(answer(merged(tiny_dit(stirred=0.05), lora, tmp_path)), applied, atol=1e-5, rtol=1e-5)


def test_the_control_without_it_the_answer_is_another(tmp_path: Path) -> None:
    applied = answer(stirred_lora(tiny_dit(stirred=0.05)).attach(tiny_dit(stirred=0.05)))
    plain = answer(merged(tiny_dit(stirred=0.05), None, tmp_path))
    assert float((plain - applied).abs().max()) > 1e-2


def test_it_begins_as_nothing() -> None:
    dit = tiny_dit(stirred=0.05)
    assert torch.equal(answer(Lora(dit, 4, random()).attach(tiny_dit(stirred=0.05))), answer(dit))


def test_peft_s_own_file_says_the_scale(tmp_path: Path) -> None:
    lora = stirred_lora(tiny_dit())
    write_lora(lora, lora.state_dict(), tmp_path)
    config = json.loads((tmp_path / CONFIG_NAME).read_text("utf-8"))
    assert config["lora_alpha"] == config["r"] == 4


@frozen(eq=False)
class OnClips:
    """A loss of the transformer that learns by additions."""

    network: Lora
    dit: Dit

    def loss(self, random: torch.Generator) -> Tensor:
        clips = tiny_clips(2)
        rotation = RopeTable(TINY.head_dim, LATENTS, 2, 2).at(0, LATENTS)
        text = self.dit.embed_prompt(sentences()[clips.sentence])
        return (self.dit(clips.clean, torch.full((2, 1), 700.0), text, rotation) - 1).square().mean()


def test_gradient_is_there_and_nowhere_else(tmp_path: Path) -> None:
    dit = tiny_dit(stirred=0.05)
    lora = stirred_lora(dit)
    stage = OnClips(lora, lora.attach(dit))
    stage.loss(random()).backward()
    assert all(p.grad is not None and float(p.grad.abs().sum()) > 0 for p in lora.parameters())
    assert all(p.grad is None for p in dit.parameters())
    lora.zero_grad()
    before = {name: value.clone() for name, value in dit.state_dict().items()}
    with closing(train(stage, Pace(5, 1e-2, 1), tmp_path)) as reports:
        losses = [report.loss for report in reports]
    assert losses[-1] < losses[0]
    assert all(torch.equal(value, before[name]) for name, value in dit.state_dict().items())
    assert averages_of(tmp_path).keys() == lora.state_dict().keys(), "a checkpoint holds the additions alone"


def test_a_twin_shares_the_weights_and_not_the_additions() -> None:
    dit = tiny_dit(stirred=0.05)
    other = twin(dit)
    plain = answer(dit)
    stirred_lora(dit).attach(other)
    assert other.blocks[0].ffn[0].weight.data_ptr() == dit.blocks[0].ffn[0].weight.data_ptr()  # pyright: ignore
    assert torch.equal(answer(dit), plain)
    assert float((answer(other) - plain).abs().max()) > 1e-2


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_works_on_weights_of_either_precision(dtype: torch.dtype) -> None:
    dit = tiny_dit(stirred=0.05).set_compute_dtype(dtype)
    assert answer(stirred_lora(dit).attach(dit)).isfinite().all()
