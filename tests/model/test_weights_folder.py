"""A model folder that has changed since it was written: refused by name, without torch where that will do."""

from __future__ import annotations

import json
from pathlib import Path

import published
import pytest
import torch
from published import OFFICIAL_CONFIG, dit_tensors, save, vace_tensors, write_config
from sfwire.errors import RequestError

from sfserver.config import load_config
from sfserver.engine import wan
from sfserver.model.config import WAN_1_3B
from sfserver.weights import WeightsError, describe_folder, loading, problem
from sfserver.weights.convert import Wish, convert
from sfserver.weights.files import safetensors_shapes
from sfserver.weights.loading import load_tae, load_text_encoder, load_transformer, load_vae

CPU = torch.device("cpu")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    convert(save(tmp_path / "tae.safetensors", published.tae_tensors()), tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def whole_model(tmp_path: Path) -> Path:
    convert(published.write_official_repository(tmp_path / "published"), tmp_path / "whole")
    return tmp_path / "whole"


def test_component_that_was_cut_off_is_refused_without_torch_and_with(folder: Path) -> None:
    path = folder / "tae.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    reason = problem(folder / "tae.safetensors", "tae")
    assert reason is not None
    assert "were written; convert or fetch it again" in reason
    with pytest.raises(WeightsError, match="were written; convert or fetch it again"):
        load_tae(folder, CPU, torch.float32)


def test_component_with_one_bit_changed_is_refused(folder: Path) -> None:
    path = folder / "tae.safetensors"
    load_tae(folder, CPU, torch.float32)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    safetensors_shapes(path)  # only its hash tells
    with pytest.raises(WeightsError, match=r"tae\.safetensors: is not what was written, its hash differs"):
        load_tae(folder, CPU, torch.float32)


def test_only_a_file_that_somebody_touched_is_hashed_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[Path] = []
    real = loading.sha256_of
    monkeypatch.setattr(loading, "sha256_of", lambda path: hashed.append(path) or real(path))
    load_tae(folder, CPU, torch.float32)
    assert hashed == []
    (folder / "tae.safetensors").touch()
    load_tae(folder, CPU, torch.float32)
    assert hashed == [folder / "tae.safetensors"]


def test_component_that_is_gone_is_named(folder: Path) -> None:
    (folder / "tae.safetensors").unlink()
    assert problem(folder / "tae.safetensors", "tae") == f"{folder / 'tae.safetensors'} is not there"
    with pytest.raises(WeightsError, match="is not there"):
        load_tae(folder, CPU, torch.float32)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("not json", "is not JSON"),
        ("[]", "does not describe a model"),
        ('{"components": {"tae": 3}}', "does not describe a model"),
        ('{"format": 2}', "has format 2, this version reads 1; update sfserver"),
    ],
)
def test_manifest_that_cannot_be_read_is_named(text: str, sentence: str, folder: Path) -> None:
    (folder / "model.json").write_text(text)
    with pytest.raises(WeightsError) as error:
        describe_folder(folder)
    assert sentence in str(error.value)
    assert problem(folder / "tae.safetensors", "tae") == str(error.value)


def test_manifest_cannot_name_a_file_elsewhere(folder: Path) -> None:
    table = json.loads((folder / "model.json").read_text())
    table["components"]["tae"]["file"] = "../../secret.safetensors"
    (folder / "model.json").write_text(json.dumps(table))
    with pytest.raises(WeightsError, match="does not describe a model"):
        describe_folder(folder)


def test_folder_without_a_manifest_or_the_role_is_told_so(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"is no model folder \(model\.json is missing\)"):
        describe_folder(tmp_path)
    with pytest.raises(WeightsError, match="holds no dit, only tae; fetch or convert it"):
        load_transformer(folder, None, CPU, torch.float32)
    (folder / "dit.safetensors").touch()
    reason = problem(folder / "dit.safetensors", "dit")
    assert reason is not None
    assert "knows of no dit" in reason


def test_transformer_of_another_size_than_the_presets_is_refused(tmp_path: Path) -> None:
    write_config(tmp_path)
    convert(save(tmp_path / "file.safetensors", dit_tensors()), tmp_path / "model")
    with pytest.raises(WeightsError, match=r"is of a 96 wide model where 1\.3B is needed; choose the preset that fits"):
        load_transformer(tmp_path / "model", None, CPU, torch.float32, expect=WAN_1_3B)


def test_vace_branch_of_a_deeper_model_is_refused(tmp_path: Path) -> None:
    write_config(tmp_path)
    convert(save(tmp_path / "dit.safetensors", dit_tensors()), tmp_path / "model")
    write_config(tmp_path, {**OFFICIAL_CONFIG, "num_layers": 4, "vace_layers": [0, 2]})
    convert(save(tmp_path / "vace.safetensors", vace_tensors()), tmp_path / "vace")
    with pytest.raises(WeightsError, match="was made for 4 layers, the transformer has 3"):
        load_transformer(tmp_path / "model", tmp_path / "vace", CPU, torch.float32)


def test_tokenizer_that_is_none_is_refused_by_name(tmp_path: Path) -> None:
    source = published.write_official_repository(tmp_path / "published")
    (source / "google" / "umt5-xxl" / "spiece.model").write_bytes(b"nonsense")
    convert(source, tmp_path / "model", Wish(roles=("text", "tokenizer")))
    with pytest.raises(WeightsError, match=r"spiece\.model: is not a SentencePiece model"):
        load_text_encoder(tmp_path / "model", tmp_path / "model", CPU, torch.float32)


def test_manifest_with_sizes_that_build_nothing_is_refused(folder: Path) -> None:
    table = json.loads((folder / "model.json").read_text())
    table["components"]["tae"]["config"]["breadth"] = 3
    (folder / "model.json").write_text(json.dumps(table))
    with pytest.raises(WeightsError, match="describes a tae that cannot be built"):
        load_tae(folder, CPU, torch.float32)


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("heads", 0, "heads is 0 and must be a whole number above 0"),
        ("heads", -3, "heads is -3 and must be a whole number above 0"),
        ("heads", 7, "7 heads do not divide a width of 96"),
        ("layers", 0, "layers is 0 and must be a whole number above 0"),
        ("text_len", -1, "text_len is -1 and must be a whole number above 0"),
        ("eps", 0, "and must be a fraction of 1"),
        ("vace_layers", [0, 99], "vace_layers is (0, 99) and must name some of 3 layers, in order"),
    ],
)
def test_manifest_with_sizes_of_no_transformer_is_refused_when_described_and_when_loaded(
    name: str, value: object, sentence: str, tmp_path: Path
) -> None:
    write_config(tmp_path)
    convert(save(tmp_path / "file.safetensors", dit_tensors() | vace_tensors()), tmp_path / "model")
    wan.describe_folder(tmp_path / "model", load_config())
    table = json.loads((tmp_path / "model" / "model.json").read_text())
    table["components"]["vace"]["config"][name] = value
    (tmp_path / "model" / "model.json").write_text(json.dumps(table))
    with pytest.raises(RequestError) as described:
        wan.describe_folder(tmp_path / "model", load_config())
    assert sentence in str(described.value)
    assert str(described.value).endswith("convert it again")
    if name != "layers":
        with pytest.raises(WeightsError) as loaded:
            load_transformer(tmp_path / "model", tmp_path / "model", CPU, torch.float32)
        assert sentence in str(loaded.value)


@pytest.mark.parametrize(
    ("role", "name", "value"),
    [
        ("text", "vocab_size", -1),
        ("text", "position_buckets", 0),
        ("vae", "dim", -1),
        ("vae", "dim", "x"),
    ],
)
def test_manifest_with_sizes_of_no_network_is_refused(role: str, name: str, value: object, whole_model: Path) -> None:
    table = json.loads((whole_model / "model.json").read_text())
    table["components"][role]["config"][name] = value
    (whole_model / "model.json").write_text(json.dumps(table))
    load = {
        "text": lambda: load_text_encoder(whole_model, whole_model, CPU, torch.float32).stack,
        "vae": lambda: load_vae(whole_model, CPU, torch.float32),
    }
    with pytest.raises(WeightsError, match="convert it again"):
        load[role]()


def test_conversion_that_breaks_off_leaves_no_half_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full_disk(*arguments: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("sfserver.weights.convert.write_safetensors", full_disk)
    source = save(tmp_path / "tae.safetensors", published.tae_tensors())
    with pytest.raises(OSError, match="No space left"):
        convert(source, tmp_path / "model")
    assert list((tmp_path / "model").iterdir()) == []


def content_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def other_transformer_with(tmp_path: Path, **changes: torch.Tensor) -> Path:
    write_config(tmp_path)
    other = {name: value + 0.5 for name, value in dit_tensors().items()}
    return save(tmp_path / "other.safetensors", other | vace_tensors() | changes)


def test_conversion_that_fails_in_its_last_part_leaves_a_working_folder_as_it_was(
    whole_model: Path, tmp_path: Path
) -> None:
    before = content_of(whole_model)
    damaged = {"vace_blocks.0.after_proj.bias": torch.full((96,), torch.nan)}
    with pytest.raises(WeightsError, match="values that are not finite"):
        convert(other_transformer_with(tmp_path, **damaged), whole_model)
    assert content_of(whole_model) == before
    load_transformer(whole_model, whole_model, CPU, torch.float32)

    convert(other_transformer_with(tmp_path), whole_model)
    changed = {name for name, content in content_of(whole_model).items() if content != before[name]}
    assert changed == {"dit.safetensors", "model.json"}, "the sound file replaces, or this test proves nothing"
    load_transformer(whole_model, whole_model, CPU, torch.float32)


def test_conversion_whose_manifest_cannot_be_written_leaves_a_working_folder_as_it_was(
    whole_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full_disk(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    before, source = content_of(whole_model), other_transformer_with(tmp_path)
    monkeypatch.setattr(Path, "write_text", full_disk)
    with pytest.raises(OSError, match="No space left"):
        convert(source, whole_model)
    assert content_of(whole_model) == before


def test_conversion_into_a_folder_with_a_strange_manifest_leaves_it_as_it_was(folder: Path, tmp_path: Path) -> None:
    (folder / "model.json").write_text("not json")
    before = content_of(folder)
    with pytest.raises(WeightsError, match="is not JSON"):
        convert(tmp_path / "tae.safetensors", folder)
    assert content_of(folder) == before
