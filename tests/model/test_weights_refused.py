"""Files that are not what they should be: refused by name, in one sentence, before anything in them runs or is kept."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pickle
import struct
import warnings
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import published
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from published import dit_tensors, save, write_config
from safetensors.torch import save as safetensors_of

from sfserver.model.config import TOY_VACE, WAN_1_3B
from sfserver.weights import WeightsError
from sfserver.weights.convert import Wish, convert
from sfserver.weights.sources import open_source


def refusal(source: Path, tmp_path: Path, wish: Wish | None = None) -> str:
    """The sentence with which a file is refused; nothing may be left of it."""
    with pytest.raises(WeightsError) as error:
        convert(source, tmp_path / "model", wish)
    sentence = str(error.value)
    assert "\n" not in sentence
    assert not any((tmp_path / "model").glob("*.safetensors*"))
    assert not (tmp_path / "model" / "model.json").exists()
    return sentence


# Files that are not weights, or not all of them -----------------------------------------------------------------------


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def cut_in_header(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:200])


def too_long(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"more")


def lfs_pointer(path: Path) -> None:
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n")


def web_page(path: Path) -> None:
    path.write_text("<!doctype html><html>Sign in</html>")


def nothing(path: Path) -> None:
    path.write_bytes(b"")


def torch_checkpoint(path: Path) -> None:
    torch.save({}, path)


def overlapping_shape(path: Path) -> None:
    header = json.dumps({"x": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 16]}}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(16))


def other_bytes(path: Path) -> None:
    path.write_bytes(b"\xff" * 64)


def header_of_lists(path: Path) -> None:
    header = b"[" * 100_000
    path.write_bytes(struct.pack("<Q", len(header)) + header)


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (cut_off, "100 bytes are missing at its end; download it again"),
        (too_long, "4 are too many at its end; download it again"),
        (cut_in_header, "is cut off or damaged (200 bytes); download it again"),
        (nothing, "is cut off or damaged (0 bytes); download it again"),
        (lfs_pointer, "is a Git LFS pointer and not the file itself"),
        (web_page, "is a web page and not weights"),
        (torch_checkpoint, "is a torch checkpoint under a safetensors name"),
        (overlapping_shape, "tensor 'x' is (1099511627776,) but has 16 bytes"),
        (header_of_lists, "is cut off or damaged"),
        (other_bytes, "is no safetensors file; download it again"),
    ],
)
def test_spoiled_safetensors_file_is_refused(spoil: Callable[[Path], None], sentence: str, tmp_path: Path) -> None:
    source = save(tmp_path / "taew2_1.safetensors", published.tae_tensors())
    spoil(source)
    assert refusal(source, tmp_path) == refusal(source, tmp_path)
    assert sentence in refusal(source, tmp_path)
    assert str(source) in refusal(source, tmp_path)


class Bomb:
    """Unpickled without care, it leaves a file behind."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return (Path.touch, (self.mark,))


def test_pickle_that_would_run_code_is_refused_and_does_not_run(tmp_path: Path) -> None:
    mark, source = tmp_path / "it ran", tmp_path / "model.pt"
    torch.save({"generator": {"x": torch.zeros(1)}, "extra": Bomb(mark)}, source)
    assert "holds more than tensors and could run code; refused" in refusal(source, tmp_path)
    assert not mark.exists()
    torch.load(source, weights_only=False)
    assert mark.exists(), "the bomb must be a live one, or this test proves nothing"


def test_old_pickle_without_an_archive_is_refused_unread(tmp_path: Path) -> None:
    mark, source = tmp_path / "it ran", tmp_path / "old.pth"
    source.write_bytes(pickle.dumps(Bomb(mark)))
    assert "is no torch checkpoint of version 1.6 or later, or was cut off" in refusal(source, tmp_path)
    assert not mark.exists()


@pytest.mark.skipif(os.name == "nt", reason="pipes with names")
def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "model.pt")
    with pytest.raises(WeightsError, match="not a plain file"):
        open_source(tmp_path / "model.pt")


def test_cut_off_checkpoint_is_refused(tmp_path: Path) -> None:
    torch.save(dict(published.tae_tensors()), tmp_path / "tae.pth")
    cut_off(tmp_path / "tae.pth")
    assert "or was cut off; download it again" in refusal(tmp_path / "tae.pth", tmp_path)


def test_archive_that_swells_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    source = tmp_path / "bomb.pt"
    with zipfile.ZipFile(source, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(50_000_000))
    assert "would unpack to more than its" in refusal(source, tmp_path)


def test_tensor_that_claims_more_than_the_file_holds_is_refused(tmp_path: Path) -> None:
    torch.save({"x": torch.zeros(1).expand(10**9)}, tmp_path / "bomb.pt")
    assert "x claims 4000000000 bytes and holds fewer" in refusal(tmp_path / "bomb.pt", tmp_path)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ([torch.zeros(1)], "holds a list and not a dictionary of tensors"),
        ({"step": 3, "note": "hello"}, "holds no tensors, only step, note"),
        ({}, "holds no tensors, only nothing"),
        ({0: torch.zeros(1)}, "has a tensor under 0 where a name belongs"),
        ({"generator": {"x": torch.zeros(1), 7: torch.zeros(1)}}, "has a tensor under 7 where a name belongs"),
        ({"x": torch.zeros(2, 2).to_sparse()}, "x is no plain tensor"),
        ({"x": torch.zeros(2, device="meta")}, "x is no plain tensor"),
    ],
)
def test_checkpoint_without_tensors_under_names_is_refused(content: object, sentence: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "model.pt")
    assert sentence in refusal(tmp_path / "model.pt", tmp_path)


def test_dictionary_inside_itself_is_refused(tmp_path: Path) -> None:
    endless: dict[str, object] = {}
    endless["model"] = endless
    torch.save(endless, tmp_path / "model.pt")
    assert "holds no tensors, only model" in refusal(tmp_path / "model.pt", tmp_path)


@pytest.mark.parametrize(
    ("name", "sentence"), [("model.onnx", "is not a weight file by its name"), ("gone.pt", "is not there")]
)
def test_file_of_another_kind_or_none_is_refused(name: str, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"x")
    assert sentence in refusal(tmp_path / name, tmp_path)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_file_is_read_or_refused_and_nothing_else(data: st.DataObject, tmp_path: Path) -> None:
    content, suffix = data.draw(st.sampled_from([safetensors_bytes(), checkpoint_bytes()]))
    damaged = bytearray(content)
    for place in data.draw(st.lists(st.integers(0, min(len(content), 6000) - 1), min_size=1, max_size=4)):
        damaged[place] = data.draw(st.integers(0, 255))
    path = tmp_path / f"damaged{suffix}"
    path.write_bytes(damaged)
    with contextlib.suppress(WeightsError), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch has things to say about strange pickles
        open_source(path)


@cache
def safetensors_bytes() -> tuple[bytes, str]:
    return safetensors_of({"x": torch.zeros(3, 4), "y": torch.zeros(2)}), ".safetensors"


@cache
def checkpoint_bytes() -> tuple[bytes, str]:
    file = io.BytesIO()
    torch.save({"generator": {"x": torch.zeros(3, 4), "y": torch.zeros(2)}, "step": 1}, file)
    return file.getvalue(), ".pt"


# Weights, but others --------------------------------------------------------------------------------------------------


def renamed_dit(**changes: torch.Tensor | None) -> dict[str, torch.Tensor]:
    tensors = dit_tensors()
    for name, value in changes.items():
        tensors.pop(name)
        if value is not None:
            tensors[name] = value
    return tensors


def wide_patches(channels: int) -> dict[str, torch.Tensor]:
    return renamed_dit(**{"patch_embedding.weight": torch.zeros(TOY_VACE.dim, channels, 1, 2, 2)})


FOREIGN = {
    "I2V by its channels": (wide_patches(36), "an image-to-video (I2V) or control checkpoint (36 input channels)"),
    "I2V by its encoder": (
        dit_tensors() | {"img_emb.proj.0.weight": torch.zeros(1)},
        "an image-to-video (I2V) checkpoint",
    ),
    "Wan 2.2 5B": (wide_patches(48), "a transformer of Wan 2.2 TI2V-5B"),
    "Wan 2.2 VAE": (
        dict(published.vae_tensors()) | {"conv2.weight": torch.zeros(48, 48, 1, 1, 1)},
        "a Wan 2.2 VAE (48 latent channels)",
    ),
    "LoRA": ({"diffusion_model.blocks.0.ffn.0.lora_up.weight": torch.zeros(4, 4)}, "a LoRA; give it together with"),
    "Stable Diffusion": (
        {"model.diffusion_model.input_blocks.0.0.weight": torch.zeros(4, 4)},
        "a Stable Diffusion checkpoint",
    ),
    "Flux": ({"double_blocks.0.img_attn.proj.weight": torch.zeros(4, 4)}, "a transformer of another family"),
    "CLIP": ({"text_model.embeddings.position_ids": torch.zeros(4, 4)}, "a CLIP encoder"),
    "another VAE": ({"decoder.mid.block_1.conv1.weight": torch.zeros(4, 4)}, "an autoencoder of another family"),
    "unknown": ({"a": torch.zeros(1), "b": torch.zeros(1)}, "nothing we know; its first tensors are a, b"),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_foreign_weights_are_told_what_they_seem_to_be(kind: str, tmp_path: Path) -> None:
    tensors, sentence = FOREIGN[kind]
    write_config(tmp_path)
    assert f"seems to be {sentence}" in refusal(save(tmp_path / "file.safetensors", tensors), tmp_path)


@pytest.mark.parametrize(
    ("tensors", "sentence"),
    [
        (renamed_dit(**{"blocks.1.ffn.2.bias": None}), "tensors are missing, the first is blocks.1.ffn.2.bias"),
        (dit_tensors() | {"blocks.1.extra": torch.zeros(1)}, "1 are unexpected, the first is blocks.1.extra"),
        (
            renamed_dit(**{"blocks.1.ffn.2.bias": torch.zeros(5)}),
            "1 have another shape, the first is blocks.1.ffn.2.bias, (5,) for (96,)",
        ),
        (renamed_dit(**{"head.head.weight": None}), "lacks 'head.head.weight'; it is incomplete"),
        (renamed_dit(**{"blocks.1.ffn.2.bias": None}), "it is incomplete or of another model: download it again, or"),
        (
            renamed_dit(**{"blocks.1.ffn.2.bias": torch.full((96,), torch.nan)}),
            "blocks.1.ffn.2.bias holds values that are not finite; the file is damaged, download it again",
        ),
        (
            renamed_dit(**{"blocks.1.ffn.2.bias": torch.zeros(96, dtype=torch.int8)}),
            "is torch.int8, which is no weight",
        ),
        (
            dit_tensors() | {"blocks.1.ffn.2.scale_weight": torch.ones(3, 3)},
            "blocks.1.ffn.2.weight is (96, 160) and has scales for blocks of it, (3, 3); take a file with one scale",
        ),
        (
            dit_tensors() | {"model.blocks.1.ffn.2.bias": torch.ones(96)},
            "blocks.1.ffn.2.bias and model.blocks.1.ffn.2.bias are one tensor by their names and hold different values",
        ),
        (
            dit_tensors() | {"model.blocks.1.ffn.2.bias": torch.ones(5)},
            "blocks.1.ffn.2.bias and model.blocks.1.ffn.2.bias are one tensor by their names and hold different values",
        ),
    ],
)
def test_transformer_that_does_not_fit_says_where(
    tensors: dict[str, torch.Tensor], sentence: str, tmp_path: Path
) -> None:
    write_config(tmp_path)
    assert sentence in refusal(save(tmp_path / "file.safetensors", tensors), tmp_path)


def test_14b_in_a_preset_for_the_1_3b_is_told_so(tmp_path: Path) -> None:
    tensors = renamed_dit(**{"patch_embedding.weight": torch.zeros(5120, 16, 1, 2, 2)})
    sentence = refusal(
        save(tmp_path / "14b.safetensors", tensors), tmp_path, Wish(preset="self-forcing", expect_dim=WAN_1_3B.dim)
    )
    assert "is of a 14B model, self-forcing needs 1.3B" in sentence


def test_unusual_width_needs_to_be_told_its_heads(tmp_path: Path) -> None:
    source = save(tmp_path / "file.safetensors", dit_tensors())
    assert "put the model's config.json beside it for its heads" in refusal(source, tmp_path)
    write_config(tmp_path, {"num_heads": 7})
    assert "no dit can be built with its sizes (7 heads do not divide" in refusal(source, tmp_path)


WRONG_CONFIGS = [
    ("num_heads", 0, "gives 0 for num_heads or num_attention_heads, which is not a whole number above 0; take the one"),
    ("num_heads", -3, "gives -3 for num_heads"),
    ("num_heads", "3", "gives '3' for num_heads"),
    ("num_heads", 3.0, "gives 3.0 for num_heads"),
    ("num_heads", True, "gives True for num_heads"),
    ("num_layers", "x", "gives 'x' for num_layers, which is not a whole number above 0"),
    ("text_len", "x", "gives 'x' for text_len"),
    ("eps", "x", "gives 'x' for eps, which is not a number above 0"),
    ("eps", float("nan"), "gives nan for eps"),
    ("eps", float("inf"), "eps is inf and must be a fraction of 1"),
    ("vace_layers", 5, "gives 5 for vace_layers, which is not a list of layers"),
    ("vace_layers", ["a", "b"], "gives ['a', 'b'] for vace_layers"),
    ("vace_layers", [0, 99], "vace_layers is (0, 99) and must name some of 3 layers, in order"),
    ("vace_layers", [-1, 2], "vace_layers is (-1, 2) and must name some of 3 layers, in order"),
    ("vace_layers", [2, 0], "vace_layers is (2, 0) and must name some of 3 layers, in order"),
    ("vace_layers", [0, 0], "vace_layers is (0, 0) and must name some of 3 layers, in order"),
]


@pytest.mark.parametrize(("name", "value", "sentence"), WRONG_CONFIGS)
def test_config_with_values_that_make_no_model_is_refused(
    name: str, value: object, sentence: str, tmp_path: Path
) -> None:
    write_config(tmp_path, published.OFFICIAL_CONFIG | {name: value})
    source = save(tmp_path / "file.safetensors", published.vace_tensors())
    assert sentence in refusal(source, tmp_path)
    write_config(tmp_path, published.OFFICIAL_CONFIG | {"image_dim": value, "num_attention_heads": None})
    assert list(convert(source, tmp_path / "model").components) == ["vace"]


def test_config_of_another_model_beside_a_vae_does_no_harm(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"num_layers": "many", "deep": ' + "[" * 50 + "]" * 50 + "}")
    source = save(tmp_path / "vae.safetensors", published.vae_tensors())
    assert list(convert(source, tmp_path / "model").components) == ["vae"]


def test_vace_branch_without_blocks_is_refused(tmp_path: Path) -> None:
    write_config(tmp_path)
    tensors = {name: value for name, value in published.vace_tensors().items() if not name.startswith("vace_blocks.")}
    assert "resembles a vace" in refusal(save(tmp_path / "vace.safetensors", tensors), tmp_path)


def test_role_that_is_not_wanted_is_told_so(tmp_path: Path) -> None:
    source = save(tmp_path / "vae.safetensors", published.vae_tensors())
    assert "holds a vae where a dit is wanted" in refusal(source, tmp_path, Wish(roles=("dit",)))


def test_folder_with_two_files_for_one_role_or_none_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "published"
    source.mkdir()
    assert "holds no dit or vace" in refusal(source, tmp_path, Wish(roles=("dit", "vace")))
    save(source / "a.safetensors", published.tae_tensors())
    save(source / "b.safetensors", published.tae_tensors())
    assert "has two files for the tae, b.safetensors is one; name the one to convert" in refusal(source, tmp_path)


@pytest.mark.parametrize(
    ("shard", "sentence"),
    [("../secret.safetensors", "which is not a file beside it"), ("gone.safetensors", "is listed in")],
)
def test_index_that_leads_elsewhere_is_refused(shard: str, sentence: str, tmp_path: Path) -> None:
    source = tmp_path / "published"
    source.mkdir()
    (source / "m.safetensors.index.json").write_text(json.dumps({"weight_map": {"x": shard}}))
    assert sentence in refusal(source, tmp_path)
