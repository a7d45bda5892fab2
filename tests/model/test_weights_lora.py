"""Low-rank additions: the same change in every spelling, and only into the model they were made for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from attrs import evolve
from published import dit_tensors, save, vace_tensors, write_config
from safetensors.torch import load_file
from torch import Tensor

from sfserver.weights import WeightsError, describe_folder
from sfserver.weights.convert import Wish, convert

MODULES = ("blocks.0.self_attn.q", "blocks.1.ffn.0", "blocks.2.cross_attn.o")
RANK, ALPHA, STRENGTH = 4, 2.0, 0.5
EXACT = Wish(dtype=torch.float32)


def matrices(module: str) -> tuple[Tensor, Tensor]:
    rows, columns = dit_tensors()[f"{module}.weight"].shape
    generator = torch.Generator().manual_seed(MODULES.index(module))
    return torch.randn(rows, RANK, generator=generator), torch.randn(RANK, columns, generator=generator)


def comfy() -> dict[str, Tensor]:
    tensors = {}
    for module in MODULES:
        up, down = matrices(module)
        tensors[f"diffusion_model.{module}.lora_up.weight"] = up
        tensors[f"diffusion_model.{module}.lora_down.weight"] = down
        tensors[f"diffusion_model.{module}.alpha"] = torch.tensor(ALPHA)
    return tensors


def kohya() -> dict[str, Tensor]:
    tensors = {}
    for module in MODULES:
        up, down = matrices(module)
        flat = "lora_unet_" + module.replace(".", "_")
        tensors |= {
            f"{flat}.lora_up.weight": up,
            f"{flat}.lora_down.weight": down,
            f"{flat}.alpha": torch.tensor(ALPHA),
        }
    return tensors


def peft(prefix: str = "base_model.model.model.", adapter: str = "") -> dict[str, Tensor]:
    """Without an alpha the factor is 1, so the first matrix is made smaller to change as much."""
    tensors = {}
    for module in MODULES:
        up, down = matrices(module)
        tensors[f"{prefix}{module}.lora_B{adapter}.weight"] = up * ALPHA / RANK
        tensors[f"{prefix}{module}.lora_A{adapter}.weight"] = down
    return tensors


def diffusers() -> dict[str, Tensor]:
    spelled = {"self_attn.q": "attn1.to_q", "ffn.0": "ffn.net.0.proj", "cross_attn.o": "attn2.to_out.0"}
    tensors = peft("transformer.")
    for ours, theirs in spelled.items():
        tensors = {name.replace(ours, theirs): value for name, value in tensors.items()}
    return tensors


def expected() -> Mapping[str, Tensor]:
    changed = dit_tensors()
    for module in MODULES:
        up, down = matrices(module)
        changed[f"{module}.weight"] = changed[f"{module}.weight"] + STRENGTH * ALPHA / RANK * up @ down
    return changed


def merge(tmp_path: Path, lora: Path, base: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
    write_config(tmp_path)
    source = save(tmp_path / "base.safetensors", base or dit_tensors())
    convert(source, tmp_path / "model", evolve(EXACT, loras=((lora, STRENGTH),)))
    return load_file(tmp_path / "model" / "dit.safetensors")


SPELLINGS = {
    "ComfyUI": comfy(),
    "kohya": kohya(),
    "PEFT": peft(),
    "PEFT with the adapter's name": peft(adapter=".default"),
    "diffusers": diffusers(),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_spelling_makes_the_same_change(spelling: str, tmp_path: Path) -> None:
    merged = merge(tmp_path, save(tmp_path / "lora" / "add.safetensors", SPELLINGS[spelling]))
    for name, value in expected().items():
        torch.testing.assert_close(merged[name], value, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(merged[f"{MODULES[0]}.weight"], dit_tensors()[f"{MODULES[0]}.weight"])
    assert describe_folder(tmp_path / "model").components["dit"].loras == ("add.safetensors",)


def test_lora_inside_a_training_checkpoint_is_found(tmp_path: Path) -> None:
    torch.save({"generator_lora": peft()}, tmp_path / "lora.pt")
    merged = merge(tmp_path, tmp_path / "lora.pt")
    torch.testing.assert_close(merged[f"{MODULES[0]}.weight"], expected()[f"{MODULES[0]}.weight"])


def test_whole_differences_are_added_too(tmp_path: Path) -> None:
    bias = torch.randn_like(dit_tensors()["blocks.0.self_attn.q.bias"])
    weight = torch.randn_like(dit_tensors()["blocks.0.norm3.weight"])
    tensors = {"diffusion_model.blocks.0.self_attn.q.diff_b": bias, "diffusion_model.blocks.0.norm3.diff": weight}
    merged = merge(tmp_path, save(tmp_path / "lora" / "add.safetensors", tensors))
    base = dit_tensors()
    torch.testing.assert_close(merged["blocks.0.self_attn.q.bias"], base["blocks.0.self_attn.q.bias"] + STRENGTH * bias)
    torch.testing.assert_close(merged["blocks.0.norm3.weight"], base["blocks.0.norm3.weight"] + STRENGTH * weight)


def test_a_vace_branch_in_the_same_file_is_left_alone(tmp_path: Path) -> None:
    lora = save(tmp_path / "lora" / "add.safetensors", comfy())
    merge(tmp_path, lora, dit_tensors() | vace_tensors())
    written = load_file(tmp_path / "model" / "vace.safetensors")
    assert all(torch.equal(written[name], value) for name, value in vace_tensors().items())


def spoiled(**changes: Tensor | None) -> dict[str, Tensor]:
    tensors = comfy()
    for name, value in changes.items():
        tensors.pop(name, None)
        if value is not None:
            tensors[name] = value
    return tensors


UP = f"diffusion_model.{MODULES[0]}.lora_up.weight"


@pytest.mark.parametrize(
    ("tensors", "sentence"),
    [
        (spoiled(**{UP: None}), "blocks.0.self_attn.q has one half of its two matrices"),
        (spoiled(**{UP: torch.zeros(7, RANK)}), "it was made for another size of the model"),
        (
            spoiled(**{"diffusion_model.blocks.9.ffn.0.diff": torch.zeros(1)}),
            "changes 1 tensors that the transformer does not have, the first is blocks.9.ffn.0.weight",
        ),
        (
            spoiled(**{"diffusion_model.blocks.0.ffn.0.hada_w1": torch.zeros(1)}),
            "is in no spelling of LoRA that we know",
        ),
        (dit_tensors(), "is in no spelling of LoRA that we know"),
    ],
)
def test_lora_that_does_not_fit_is_refused_by_name(tensors: dict[str, Tensor], sentence: str, tmp_path: Path) -> None:
    lora = save(tmp_path / "lora" / "add.safetensors", tensors)
    with pytest.raises(WeightsError) as refusal:
        merge(tmp_path, lora)
    assert sentence in str(refusal.value)
    assert "add.safetensors" in str(refusal.value)
    assert not (tmp_path / "model" / "model.json").exists()


def test_lora_without_a_transformer_to_merge_into_is_refused(tmp_path: Path) -> None:
    from published import vae_tensors

    lora = save(tmp_path / "lora" / "add.safetensors", comfy())
    with pytest.raises(WeightsError, match="holds no transformer to merge a LoRA into"):
        convert(save(tmp_path / "vae.safetensors", vae_tensors()), tmp_path / "model", Wish(loras=((lora, 1.0),)))
