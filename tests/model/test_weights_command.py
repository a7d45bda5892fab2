"""`sfserver convert --preset`: what the preset says of its files holds for files that somebody downloaded by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from attrs import evolve
from published import dit_tensors, prefixed, save, vae_tensors, write_config

from sfserver.cli import main
from sfserver.engine import presets
from sfserver.model.config import TOY
from sfserver.weights import describe_folder


@pytest.fixture
def checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A training checkpoint with both of its dictionaries, and every preset of its size."""
    monkeypatch.setattr(presets, "PRESETS", tuple(evolve(preset, dit=TOY) for preset in presets.PRESETS))
    write_config(tmp_path)
    tensors = prefixed("model.", dit_tensors())
    torch.save({"generator": tensors, "generator_ema": tensors}, tmp_path / "model.pt")
    return tmp_path / "model.pt"


@pytest.mark.parametrize("preset", [preset.id for preset in presets.PRESETS])
def test_the_dictionary_that_the_preset_prefers_is_taken(preset: str, checkpoint: Path, tmp_path: Path) -> None:
    assert main(["convert", str(checkpoint), str(tmp_path / "model"), "--preset", preset]) == 0
    wanted = presets.find(preset).part("dit").source.prefer[0]
    assert describe_folder(tmp_path / "model").components["dit"].dialect == f"torch checkpoint, {wanted}, renamed"


def test_the_presets_do_not_all_prefer_the_same() -> None:
    assert len({preset.part("dit").source.prefer[0] for preset in presets.PRESETS}) > 1


def test_without_a_preset_the_average_is_taken(checkpoint: Path, tmp_path: Path) -> None:
    assert main(["convert", str(checkpoint), str(tmp_path / "model")]) == 0
    assert "generator_ema" in describe_folder(tmp_path / "model").components["dit"].dialect


def notes(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return [line for line in capsys.readouterr().err.splitlines() if line.startswith("note: ")]


def test_preset_with_a_lora_asks_for_it_until_it_was_given(checkpoint: Path, tmp_path: Path, capsys) -> None:
    command = ["convert", str(checkpoint), str(tmp_path / "model"), "--preset", "longlive"]
    assert main(command) == 0
    (note,) = notes(capsys)
    assert "longlive was trained with models/lora.pt of Efficient-Large-Model/LongLive-1.3B merged in" in note
    assert note.endswith("unless model.pt has that in it already, convert it again with --lora FILE")

    adding = {f"blocks.0.self_attn.q.lora_{half}.weight": torch.zeros(96, 96) for half in "AB"}
    assert main([*command, "--lora", str(save(tmp_path / "lora" / "lora.safetensors", adding))]) == 0
    assert notes(capsys) == []


def test_no_lora_is_asked_for_where_the_preset_or_the_folder_has_no_use_for_one(
    checkpoint: Path, tmp_path: Path, capsys
) -> None:
    assert main(["convert", str(checkpoint), str(tmp_path / "model"), "--preset", "self-forcing"]) == 0
    vae = save(tmp_path / "vae" / "vae.safetensors", vae_tensors())
    assert main(["convert", str(vae), str(tmp_path / "shared"), "--preset", "longlive"]) == 0
    assert notes(capsys) == []
