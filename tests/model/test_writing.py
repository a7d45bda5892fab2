"""Files written piece by piece are what the library reads, and no more of a tensor than a piece is in memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from published import dit_tensors, save
from safetensors import safe_open
from torch.utils._python_dispatch import TorchDispatchMode

from sfserver.model.config import TOY_VACE
from sfserver.weights import WeightsError, writing
from sfserver.weights.convert import Wish, convert
from sfserver.weights.files import safetensors_shapes, sha256_of

TENSORS = {
    "odd": torch.arange(3).bfloat16(),
    "wide": torch.randn(5, 7),
    "none": torch.zeros(0, 4),
    "one": torch.tensor(2.5),
    "long": torch.randn(64, 3, 2).bfloat16(),
}


def write(path: Path) -> str:
    shapes = {name: tuple(value.shape) for name, value in TENSORS.items()}
    dtypes = {name: value.dtype for name, value in TENSORS.items()}
    return writing.write_safetensors(path, shapes, dtypes, lambda name: writing.pieces_of(TENSORS[name]))


@pytest.mark.parametrize("piece", [1, 10, 10**9])
def test_what_is_written_in_pieces_is_read_as_a_whole(
    piece: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "PIECE_ELEMENTS", piece)
    path = tmp_path / "a.safetensors"
    assert write(path) == sha256_of(path)
    assert set(safetensors_shapes(path)) == set(TENSORS), "its layout stands the check that strangers' files get"
    with safe_open(path, framework="pt") as file:
        for name, value in TENSORS.items():
            assert torch.equal(file.get_tensor(name), value)
            assert file.get_tensor(name).dtype == value.dtype


def test_a_disk_that_is_full_is_one_sentence(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no device here that is always full")
    with pytest.raises(WeightsError, match=r"cannot be written \(No space left on device\); is the disk full\?"):
        write(Path("/dev/full"))


class Largest(TorchDispatchMode):
    """The largest tensor, in elements, that any call has made anew."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        answer = func(*args, **(kwargs or {}))
        given = {a.untyped_storage().data_ptr() for a in args if isinstance(a, torch.Tensor)}
        is_real = isinstance(answer, torch.Tensor) and answer.device.type == "cpu"
        if is_real and answer.untyped_storage().data_ptr() not in given:
            self.elements = max(self.elements, answer.numel())
        return answer


def test_converting_makes_nothing_larger_than_a_piece_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint's own tensors are mapped from its file and are not memory."""
    monkeypatch.setattr("sfserver.weights.identify.HEADS_OF_DIM", {TOY_VACE.dim: TOY_VACE.heads})
    tensors = dit_tensors()
    source = tmp_path / "dit.pt"
    torch.save(tensors, source)
    largest = max(value.numel() for value in tensors.values())
    row = max(value.numel() // value.shape[0] for value in tensors.values() if value.ndim)

    def most_at_once(piece: int) -> int:
        monkeypatch.setattr(writing, "PIECE_ELEMENTS", piece)
        with Largest() as made:
            convert(source, tmp_path / str(piece), Wish(roles=("dit",)))
        return made.elements

    assert most_at_once(piece=2 * row) <= 2 * row < largest
    assert most_at_once(piece=10**9) == largest, "the control: whole tensors"
    same = (sha256_of(tmp_path / str(piece) / "dit.safetensors") for piece in (2 * row, 10**9))
    assert len(set(same)) == 1


def test_a_published_safetensors_file_becomes_the_same_as_the_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sfserver.weights.identify.HEADS_OF_DIM", {TOY_VACE.dim: TOY_VACE.heads})
    torch.save(dit_tensors(), tmp_path / "dit.pt")
    save(tmp_path / "dit.safetensors", dit_tensors())
    hashes = [
        convert(tmp_path / name, tmp_path / name.replace(".", "-"), Wish(roles=("dit",))).components["dit"].sha256
        for name in ("dit.pt", "dit.safetensors")
    ]
    assert hashes[0] == hashes[1]
