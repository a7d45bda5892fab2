"""Published files opened as names, shapes and tensors that are read one at a time, so that nothing in them can run.

A `.pt` file is a zip archive around a pickle. It is unpickled with torch's list of permitted types only, memory-mapped,
and only here, for `sfserver convert`; the engine opens safetensors alone.
"""

from __future__ import annotations

import os
import pickle
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open
from sfwire.regular import open_regular
from torch import Tensor

from ..errors import quoted
from .files import Shapes, WeightsError, read_json, safetensors_shapes

PREFER = ("generator_ema", "generator", "model", "state_dict")
"""Which dictionary of a training checkpoint to take, the first that is there: Self Forcing is run by its average."""
CHECKPOINT_SUFFIXES = (".pt", ".pth", ".bin", ".ckpt")
_MAX_PICKLE_BYTES = 256 * 1024 * 1024
"""The pickle holds names and shapes; the tensors are beside it in the archive."""
_MAX_DEPTH = 8
"""Dictionaries in dictionaries; a pickle can hold one that is inside itself."""


class Source(Protocol):
    """A published file, or several that are one."""

    @property
    def path(self) -> Path: ...

    @property
    def dialect(self) -> str: ...

    @property
    def shapes(self) -> Shapes: ...

    def tensor(self, name: str) -> Tensor:
        """One tensor on the CPU, as it is stored."""
        ...


class SafetensorsSource:
    """One safetensors file, or the shards of one."""

    def __init__(self, path: Path, shards: Sequence[Path] = ()) -> None:
        self.path = path
        self.dialect = "safetensors"
        self._home: dict[str, Path] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        for shard in shards or (path,):
            shapes = safetensors_shapes(shard)
            self.shapes.update(shapes)
            self._home.update(dict.fromkeys(shapes, shard))

    def tensor(self, name: str) -> Tensor:
        try:
            with safe_open(self._home[name], framework="pt") as file:
                return file.get_tensor(name)
        except (OSError, SafetensorError) as error:
            raise WeightsError(f"{self._home[name]}: cannot be read ({error}); download it again") from None


class CheckpointSource:
    """A torch checkpoint: a dictionary of tensors, or one of dictionaries of which `prefer` names the one to take."""

    def __init__(self, path: Path, prefer: Sequence[str] = PREFER) -> None:
        self.path = path
        content, taken = _descend(_unpickled(path), prefer)
        self.dialect = f"torch checkpoint, {taken}" if taken else "torch checkpoint"
        self._tensors = {name: value for name, value in content.items() if isinstance(value, Tensor)}
        if not self._tensors:
            raise WeightsError(f"{path}: holds no tensors, only {', '.join(map(str, list(content)[:5])) or 'nothing'}")
        for name, value in self._tensors.items():
            if not isinstance(name, str):
                raise WeightsError(f"{path}: has a tensor under {name!r} where a name belongs; take a model's own file")
            if value.layout is not torch.strided or value.device.type != "cpu":
                raise WeightsError(f"{path}: {name} is no plain tensor; take a safetensors file")
            if value.nbytes > value.untyped_storage().nbytes():
                raise WeightsError(f"{path}: {name} claims {value.nbytes} bytes and holds fewer; refused")
        self.shapes: dict[str, tuple[int, ...]] = {name: tuple(value.shape) for name, value in self._tensors.items()}

    def tensor(self, name: str) -> Tensor:
        return self._tensors[name]


class RenamedSource:
    """Another source under our names. Two names that become one must hold the same, as a shared embedding does."""

    def __init__(self, source: Source, rename: Callable[[str], str]) -> None:
        self.path, self.dialect = source.path, source.dialect
        self._source = source
        self._theirs: dict[str, list[str]] = {}
        for theirs in source.shapes:
            self._theirs.setdefault(rename(theirs), []).append(theirs)
        self.shapes: dict[str, tuple[int, ...]] = {
            ours: source.shapes[first] for ours, (first, *_) in self._theirs.items()
        }
        if any([ours] != theirs for ours, theirs in self._theirs.items()):
            self.dialect += ", renamed"

    def tensor(self, name: str) -> Tensor:
        first, *others = self._theirs[name]
        value = self._source.tensor(first)
        for other in others:
            same = self._source.tensor(other)
            if value.dtype != same.dtype or not torch.equal(value, same):
                raise WeightsError(
                    f"{self.path}: {first} and {other} are one tensor by their names and hold different values; take a "
                    "file that holds one model"
                )
        return value


class PartSource:
    """Those tensors of a source that `name` has another name for; None leaves one out."""

    def __init__(self, source: Source, name: Callable[[str], str | None]) -> None:
        self.path, self.dialect = source.path, source.dialect
        self._source = source
        self._theirs = {ours: theirs for theirs in source.shapes if (ours := name(theirs)) is not None}
        self.shapes: dict[str, tuple[int, ...]] = {ours: source.shapes[name] for ours, name in self._theirs.items()}

    def tensor(self, name: str) -> Tensor:
        return self._source.tensor(self._theirs[name])


class Fp8Source:
    """A source whose matrices are 8-bit floats times a scale of their own, as ComfyUI's "scaled fp8" files are."""

    _SCALES = (".scale_weight", ".weight_scale")
    _NOT_WEIGHTS = ("scaled_fp8", ".scale_input", ".input_scale", *_SCALES)

    def __init__(self, source: Source) -> None:
        self.path, self.dialect = source.path, f"{source.dialect}, scaled fp8"
        self._source = source
        self.shapes = {name: s for name, s in source.shapes.items() if not name.endswith(self._NOT_WEIGHTS)}
        for name, shape in self.shapes.items():
            scale = source.shapes.get(self._scale_of(name), ())
            if len(scale) > len(shape) or any(n not in (1, of) for n, of in zip(scale, shape, strict=False)):
                raise WeightsError(
                    f"{self.path}: {name} is {shape} and has scales for blocks of it, {scale}; take a file with one "
                    "scale for each matrix or row, or one in bf16"
                )

    @classmethod
    def fits(cls, shapes: Shapes) -> bool:
        return any(name.endswith(("scaled_fp8", *cls._SCALES)) for name in shapes)

    def tensor(self, name: str) -> Tensor:
        value, scale_name = self._source.tensor(name), self._scale_of(name)
        if not scale_name:
            if value.ndim == 2 and value.dtype.itemsize == 1:
                raise WeightsError(
                    f"{self.path}: {name} is 8-bit in a scaled file and has no scale, as if the file lost it; "
                    "download it again, or take one in bf16"
                )
            return value
        scale = self._source.tensor(scale_name).float()
        return value.float() * scale.reshape(*scale.shape, *(1,) * (value.ndim - scale.ndim))

    def _scale_of(self, name: str) -> str:
        """Name of the scale that belongs to a weight, or nothing."""
        names = (name.removesuffix(".weight") + suffix for suffix in self._SCALES if name.endswith(".weight"))
        return next((scale_name for scale_name in names if scale_name in self._source.shapes), "")


def open_source(path: Path, prefer: Sequence[str] = PREFER) -> Source:
    """A weight file by its suffix; `*.index.json` opens the shards that it lists. Raises WeightsError."""
    if path.name.endswith(".safetensors.index.json"):
        return SafetensorsSource(path, shards_of(path))
    if path.suffix == ".safetensors":
        return SafetensorsSource(path)
    if path.suffix in CHECKPOINT_SUFFIXES:
        return CheckpointSource(path, prefer)
    known = ", ".join((".safetensors", *CHECKPOINT_SUFFIXES))
    raise WeightsError(f"{path}: is not a weight file by its name; those end in {known}")


def shards_of(index: Path) -> list[Path]:
    """The files that an index of shards lists, all of which are there. Raises WeightsError."""
    try:
        names = set(read_json(index)["weight_map"].values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise WeightsError(f"{index}: is not an index of safetensors shards; download it again") from None
    for name in names:
        if not isinstance(name, str) or Path(name).name != name:
            raise WeightsError(f"{index}: names the shard {quoted(name)}, which is not a file beside it")
        if not (index.parent / name).is_file():
            raise WeightsError(f"{index.parent / name}: is listed in {index.name} and not there; download it")
    return [index.parent / name for name in sorted(names)]


def _unpickled(path: Path) -> Mapping[str, Any]:
    _check_archive(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError:
        raise WeightsError(
            f"{path}: holds more than tensors and could run code; refused, take a safetensors file"
        ) from None
    except Exception:  # the boundary to a stranger's bytes: a damaged pickle can make its reader raise anything
        raise WeightsError(f"{path}: is not a torch checkpoint, or is damaged; download it again") from None
    if not isinstance(content, Mapping):
        raise WeightsError(f"{path}: holds a {type(content).__name__} and not a dictionary of tensors")
    return content


def _check_archive(path: Path) -> None:
    """Sizes before anything is unpacked: a checkpoint's archive is not compressed, one that swells is none."""
    try:
        with open_regular(path) as file, zipfile.ZipFile(file) as archive:
            size = os.fstat(file.fileno()).st_size
            entries = archive.infolist()
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror}); check the path") from None
    except (zipfile.BadZipFile, ValueError, NotImplementedError):
        raise WeightsError(
            f"{path}: is no torch checkpoint of version 1.6 or later, or was cut off; download it again"
        ) from None
    pickles = [entry.file_size for entry in entries if entry.filename.endswith(".pkl")]
    if sum(entry.file_size for entry in entries) > size or sum(pickles) > _MAX_PICKLE_BYTES:
        raise WeightsError(f"{path}: would unpack to more than its {size} bytes; refused")


def _descend(content: Mapping[str, Any], prefer: Iterable[str]) -> tuple[Mapping[str, Any], str]:
    """The dictionary of tensors inside a checkpoint, and the path to it."""
    prefer, taken = tuple(prefer), []
    for _ in range(_MAX_DEPTH):
        inner = next((key for key in prefer if isinstance(content.get(key), Mapping) and content[key]), None)
        if inner is None:
            break
        taken.append(inner)
        content = content[inner]
    return content, ".".join(taken)
