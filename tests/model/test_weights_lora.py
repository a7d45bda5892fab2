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


def kohya_twice_underscored() -> dict[str, Tensor]:
    return {name.replace("lora_unet_", "lora_unet__"): value for name, value in kohya().items()}


def convolutional() -> dict[str, Tensor]:
    """As kernels of one pixel, each alpha a vector of one number."""
    return {n: value[..., None, None] if value.ndim == 2 else value.reshape(1) for n, value in comfy().items()}


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
    "kohya with two underscores": kohya_twice_underscored(),
    "convolutions": convolutional(),
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


def test_a_convolution_is_changed_by_matrices_of_its_size(tmp_path: Path) -> None:
    up, down = torch.randn(96, RANK), torch.randn(RANK, 64)
    tensors = {"patch_embedding.lora_up.weight": up, "patch_embedding.lora_down.weight": down}
    merged = merge(tmp_path, save(tmp_path / "lora" / "add.safetensors", tensors))["patch_embedding.weight"]
    base = dit_tensors()["patch_embedding.weight"]
    assert base.shape == (96, 16, 1, 2, 2)
    torch.testing.assert_close(merged, base + STRENGTH * (up @ down).reshape(base.shape))


def spoiled(**changes: Tensor | None) -> dict[str, Tensor]:
    tensors = comfy()
    for name, value in changes.items():
        tensors.pop(name, None)
        if value is not None:
            tensors[name] = value
    return tensors


UP, DOWN, ALPHA_NAME, DIFF, DIFF_B = (
    f"diffusion_model.{MODULES[0]}.{part}" for part in ("lora_up.weight", "lora_down.weight", "alpha", "diff", "diff_b")
)
WIDE_UP, WIDE_DOWN = (f"diffusion_model.{MODULES[1]}.lora_{half}.weight" for half in ("up", "down"))


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
        (spoiled(**{DOWN: torch.zeros(5, 96)}), "lora_down.weight is (5, 96), which share no rank; download it again"),
        (spoiled(**{UP: torch.tensor(1.0)}), "lora_up.weight is () and"),
        (spoiled(**{UP: torch.zeros(96), DOWN: torch.zeros(1, 96)}), "lora_up.weight is (96,) and"),
        (spoiled(**{UP: torch.zeros(96, 0), DOWN: torch.zeros(0, 96)}), "which share no rank"),
        (
            spoiled(**{WIDE_UP: torch.zeros(96, RANK), WIDE_DOWN: torch.zeros(RANK, 160)}),
            "makes a (96, 160) for a weight of (160, 96); it was made for another size of the model",
        ),
        (spoiled(**{DIFF: torch.zeros(3, 3)}), "q.diff makes a (3, 3) for a weight of (96, 96)"),
        (spoiled(**{DIFF: torch.zeros(())}), "q.diff makes a () for a weight of (96, 96)"),
        (spoiled(**{DIFF_B: torch.zeros(1)}), "q.diff_b makes a (1,) for a weight of (96,)"),
        (spoiled(**{ALPHA_NAME: torch.ones(2)}), "alpha is (2,) where one number belongs"),
        (spoiled(**{UP: torch.full((96, RANK), torch.nan)}), "makes blocks.0.self_attn.q.weight not finite"),
        (spoiled(**{ALPHA_NAME: torch.tensor(torch.inf)}), "makes blocks.0.self_attn.q.weight not finite"),
        (spoiled(**{DIFF_B: torch.full((96,), torch.inf)}), "makes blocks.0.self_attn.q.bias not finite"),
        (spoiled(**{UP: torch.zeros(96, RANK, dtype=torch.int8)}), "is torch.int8; take the LoRA in a floating-point"),
        (comfy() | peft(""), "are the same part of blocks.0.self_attn.q; take a file that holds one LoRA"),
    ],
)
def test_lora_that_does_not_fit_is_refused_by_name(tensors: dict[str, Tensor], sentence: str, tmp_path: Path) -> None:
    lora = save(tmp_path / "lora" / "add.safetensors", tensors)
    with pytest.raises(WeightsError) as refusal:
        merge(tmp_path, lora)
    assert sentence in str(refusal.value)
    assert "add.safetensors" in str(refusal.value)
    assert not (tmp_path / "model" / "model.json").exists()


def test_a_strength_that_is_not_finite_is_blamed_and_not_the_file(tmp_path: Path) -> None:
    write_config(tmp_path)
    lora = save(tmp_path / "lora" / "add.safetensors", comfy())
    source = save(tmp_path / "base.safetensors", dit_tensors())
    with pytest.raises(WeightsError, match=r"add\.safetensors: makes .* not finite at strength nan"):
        convert(source, tmp_path / "model", evolve(EXACT, loras=((lora, float("nan")),)))


def test_a_damaged_transformer_is_blamed_and_not_the_lora_that_is_merged_into_it(tmp_path: Path) -> None:
    name = f"{MODULES[0]}.weight"
    damaged = dit_tensors() | {name: torch.full((96, 96), torch.nan)}
    with pytest.raises(
        WeightsError, match=r"base\.safetensors: blocks\.0\.self_attn\.q\.weight holds values that are not"
    ):
        merge(tmp_path, save(tmp_path / "lora" / "add.safetensors", comfy()), damaged)


def test_lora_without_a_transformer_to_merge_into_is_refused(tmp_path: Path) -> None:
    from published import vae_tensors

    lora = save(tmp_path / "lora" / "add.safetensors", comfy())
    with pytest.raises(WeightsError, match="holds no transformer to merge a LoRA into"):
        convert(save(tmp_path / "vae.safetensors", vae_tensors()), tmp_path / "model", Wish(loras=((lora, 1.0),)))
