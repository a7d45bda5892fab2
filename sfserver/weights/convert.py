"""Published files -> a model folder: safetensors in bf16 under our names, and the manifest that describes them.

The only place that opens torch checkpoints. Each tensor is read, changed and written piece by piece, so that a file of
11 GB needs about half a gigabyte of memory; nothing that does not fit the network to the last name and shape is written
at all.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from attrs import field, frozen
from sfwire.regular import read_regular
from torch import Tensor

from ..model import eightbit
from ..model.eightbit import Kind
from .dialects import RENAME, unwrapped
from .files import MAX_JSON_BYTES, Shapes, WeightsError, sha256_of
from .identify import CLEAN_MARK, compared, foreign, given_sizes, guess, model_name, roles_in, sizes_of
from .loading import expected_shapes, with_scales
from .lora import Lora, open_lora
from .manifest import FILE_OF_ROLE, Component, Manifest, merged, part_of, write_manifest
from .sources import CHECKPOINT_SUFFIXES, PREFER, Fp8Source, PartSource, RenamedSource, Source, open_source, shards_of
from .writing import pieces_of, write_safetensors

OnProgress = Callable[[str, int, int], None]
"""Called with a role, tensors done and tensors in all."""

_SUBFOLDERS = ("", "transformer", "vae", "text_encoder", "tokenizer", "google/umt5-xxl")
"""Where the official repositories and diffusers' keep their parts."""
_TRANSFORMERS = ("dit", "clean", "vace")
_KEPT_PRECISE = ("modulation", "time_embedding.", "time_projection.", "patch_embedding.", "head.", "norm")
"""Parts of the transformer that are computed in float32: small, so they keep the precision they come in."""


@frozen
class Wish:
    """What to make of the files."""

    preset: str = ""
    """Id of the preset that the folder is for."""
    roles: tuple[str, ...] = tuple(FILE_OF_ROLE)
    """Roles to take; a file may hold more."""
    prefer: tuple[str, ...] = PREFER
    loras: tuple[tuple[Path, float], ...] = ()
    """Files to merge into the transformer, each with its strength, in order."""
    dtype: torch.dtype = torch.bfloat16
    eight_bit: Kind | None = None
    """Of the transformer's large matrices, instead of `dtype`; see `model.eightbit`."""
    expect_dim: int | None = None
    """Width that the preset's transformer has."""
    on_progress: OnProgress = field(default=lambda role, done, of: None)


def convert(source: Path, folder: Path, wish: Wish | None = None) -> Manifest:
    """Convert a published file, or a folder of them, into the model folder `folder`; what it held before stays.

    Returns what the folder holds now. Raises WeightsError for files that are not what is wanted, and OSError where
    `folder` cannot be written. Files take their places only once all of them are written, so a conversion that fails
    leaves the folder as it was.
    """
    wish = wish or Wish()
    found = _parts(source, wish)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        made = {role: part.write(part_of(folder, FILE_OF_ROLE[role]), wish) for role, part in found.items()}
        manifest = merged(folder, made, wish.preset)
        write_manifest(folder, manifest, [component.file for component in made.values()])
    finally:
        for role in found:
            part_of(folder, FILE_OF_ROLE[role]).unlink(missing_ok=True)
    return manifest


@frozen
class _Network:
    """One role's tensors in a source, sized and found to fit."""

    role: str
    source: Source
    names: Shapes
    config: dict[str, Any]
    loras: tuple[Lora, ...]

    def write(self, path: Path, wish: Wish) -> Component:
        """Into `path`, from where the file is yet to be moved to its place."""
        done = 0

        def pieces(name: str) -> Iterator[Tensor]:
            nonlocal done
            yield from self._eight_bit_pieces(name, eight_bit) if name in rounded else self._pieces(name, wish.dtype)
            done += 1
            wish.on_progress(self.role, done, len(shapes))

        eight_bit: Kind | None = wish.eight_bit if self.role in _TRANSFORMERS else None
        dtypes = {name: self._dtype(name, wish.dtype) for name in self.names}
        large = {name for name in self.names if eight_bit and eightbit.is_large(name)}
        shapes, rounded = with_scales(self.names, large), large | {name + eightbit.SCALE for name in large}
        if eight_bit:
            dtypes |= dict.fromkeys(large, eightbit.DTYPE_OF[eight_bit])
            dtypes |= dict.fromkeys(rounded - large, torch.float32)
        sha256 = write_safetensors(path, shapes, dtypes, pieces)
        return Component(
            file=FILE_OF_ROLE[self.role],
            bytes=path.stat().st_size,
            sha256=sha256,
            mtime_ns=path.stat().st_mtime_ns,
            config=self.config,
            dialect=self.source.dialect,
            source=self.source.path.name,
            dtype=eight_bit or str(wish.dtype).removeprefix("torch."),
            loras=tuple(lora.source.path.name for lora in self.loras),
        )

    def _is_precise(self, name: str) -> bool:
        return self.role in _TRANSFORMERS and any(part in name for part in _KEPT_PRECISE)

    def _dtype(self, name: str, dtype: torch.dtype) -> torch.dtype:
        """What a tensor is written in. Those that keep their precision are small: to know it, they are read twice."""
        if not self._is_precise(name):
            return dtype
        return torch.bfloat16 if self._value(name).dtype == torch.bfloat16 else torch.float32

    def _value(self, name: str) -> Tensor:
        value = self.source.tensor(name)
        for lora in self.loras:
            value = lora.added(name, value)
        if not value.dtype.is_floating_point:
            raise WeightsError(f"{self.source.path}: {name} is {value.dtype}, which is no weight we can use")
        # TAEHV files made for more growth in time have spare rows in front.
        return value[-self.names[name][0] :] if self.role == "tae" else value

    def _eight_bit_pieces(self, name: str, kind: Kind | None) -> Iterator[Tensor]:
        """A large matrix in 8 bits, or its scales: they are of rows, and a piece is some rows."""
        assert kind
        for piece in self._pieces(name.removesuffix(eightbit.SCALE), torch.float32):
            scales = eightbit.scales_of(piece, kind)
            yield scales if name.endswith(eightbit.SCALE) else eightbit.rounded(piece, scales, kind)

    def _pieces(self, name: str, dtype: torch.dtype) -> Iterator[Tensor]:
        """A tensor as it is written, in parts: one that is mapped from its file is never in memory as a whole."""
        value = self._value(name)
        precise = self._is_precise(name)
        for piece in pieces_of(value):
            piece = piece.float() if precise and piece.dtype != torch.bfloat16 else piece.to(dtype)
            if not piece.isfinite().all():
                raise WeightsError(
                    f"{self.source.path}: {name} holds values that are not finite; the file is damaged, download it "
                    "again"
                )
            yield piece


@frozen
class _Tokenizer:
    """The vocabulary, which is copied as it is."""

    path: Path

    def write(self, path: Path, wish: Wish) -> Component:
        """Into `path`, from where the file is yet to be moved to its place."""
        shutil.copyfile(self.path, path)
        return Component(
            file=FILE_OF_ROLE["tokenizer"],
            bytes=path.stat().st_size,
            sha256=sha256_of(path),
            mtime_ns=path.stat().st_mtime_ns,
            config={},
            dialect="SentencePiece",
            source=self.path.name,
            dtype="",
        )


def _parts(source: Path, wish: Wish) -> dict[str, _Network | _Tokenizer]:
    """Every wanted role that the files hold, each checked and none read yet."""
    if not source.exists():
        raise WeightsError(f"{source}: is not there; check the path")
    parts: dict[str, _Network | _Tokenizer] = {}
    for path in _candidates(source):
        for role, part in _parts_of_file(path, wish, alone=path == source):
            if role in parts:
                raise WeightsError(
                    f"{source}: has two files for the {role}, {path.name} is one; name the one to convert"
                )
            parts[role] = part
    if not parts:
        raise WeightsError(f"{source}: holds no {' or '.join(wish.roles)} of Wan 2.1; name the file itself")
    if wish.loras and "dit" not in parts:
        raise WeightsError(f"{source}: holds no transformer to merge a LoRA into; give both at once")
    return parts


def _candidates(source: Path) -> list[Path]:
    """The files worth opening: an index stands for its shards."""
    if source.is_file():
        return [source]
    found: list[Path] = []
    for folder in dict.fromkeys(source / name for name in _SUBFOLDERS):
        indices = sorted(folder.glob("*.safetensors.index.json"))
        shards = {shard for index in indices for shard in shards_of(index)}
        singles = sorted(set(folder.glob("*.safetensors")) - shards)
        checkpoints = [p for p in sorted(folder.glob("*")) if p.suffix in CHECKPOINT_SUFFIXES]
        found += [*indices, *singles, *checkpoints, *folder.glob("spiece.model")]
    return found


def _parts_of_file(path: Path, wish: Wish, alone: bool) -> Iterable[tuple[str, _Network | _Tokenizer]]:
    if path.name == "spiece.model":
        return [("tokenizer", _Tokenizer(path))] if "tokenizer" in wish.roles else []
    source, roles = _recognised(open_source(path, wish.prefer))
    if alone:
        _check_known(source, roles, wish)
    return [(role, _network(source, role, wish)) for role in roles if role in wish.roles]


def _recognised(source: Source) -> tuple[Source, tuple[str, ...]]:
    """The source under our names, and the roles it can play; as it is and () where no dialect makes sense of it."""
    for rename in dict.fromkeys(RENAME.values()):
        renamed = RenamedSource(source, rename)
        roles = roles_in(renamed.shapes)
        if roles and RENAME[roles[0]] is rename:
            return Fp8Source(renamed) if Fp8Source.fits(renamed.shapes) else renamed, roles
    return source, ()


def _check_known(source: Source, roles: Sequence[str], wish: Wish) -> None:
    if not roles:
        seeming = guess(RenamedSource(source, unwrapped).shapes)
        raise WeightsError(f"{source.path}: holds no weights of Wan 2.1; it seems to be {seeming}")
    if not set(roles) & set(wish.roles):
        raise WeightsError(
            f"{source.path}: holds a {' and a '.join(roles)} where a {' or '.join(wish.roles)} is wanted"
        )


def _network(source: Source, role: str, wish: Wish) -> _Network:
    stranger = foreign(source.shapes)
    if stranger:
        raise WeightsError(f"{source.path}: seems to be {stranger}")
    source = PartSource(source, _name_in(role))
    config = sizes_of(role, source.shapes, _config_beside(source.path), source.path.name)
    if wish.expect_dim and role in _TRANSFORMERS and config["dim"] != wish.expect_dim:
        raise WeightsError(
            f"{source.path}: is of a {model_name(config['dim'])} model, {wish.preset or 'the preset'} needs "
            f"{model_name(wish.expect_dim)}; take that model's file or another preset"
        )
    try:
        expected = expected_shapes(role, config)
    except (TypeError, ValueError) as error:
        raise WeightsError(f"{source.path}: no {role} can be built with its sizes ({error})") from None
    found = {name: shape for name, shape in source.shapes.items() if _belongs(role, name)}
    misfit = compared(role, _spare_rows_ignored(role, found, expected), expected)
    if misfit:
        raise WeightsError(
            f"{source.path}: {misfit}; it is incomplete or of another model: download it again, or take the file that "
            "its makers publish for Wan 2.1"
        )
    loras = _opened_loras(wish, expected) if role == "dit" else ()
    return _Network(role, source, expected, config, loras)


def _name_in(role: str) -> Callable[[str], str | None]:
    """What a tensor is called in a network of a role; a file may hold two transformers, tensor by tensor."""
    if role == "clean":
        return lambda name: name.replace(CLEAN_MARK, "") if CLEAN_MARK in name else None
    return lambda name: None if CLEAN_MARK in name else name


def _belongs(role: str, name: str) -> bool:
    """A ComfyUI file may hold the transformer and its VACE branch side by side."""
    return role not in _TRANSFORMERS or name.startswith("vace_") == (role == "vace")


def _spare_rows_ignored(role: str, found: Shapes, expected: Shapes) -> Shapes:
    """TAEHV's layers that grow in time may come with more rows than are used: the last ones count."""
    if role != "tae":
        return found
    grown = {n for n in expected if n.startswith("decoder.") and n.endswith(".conv.weight")}
    return {
        name: expected[name] if name in grown and shape[0] > expected[name][0] else shape
        for name, shape in found.items()
    }


def _opened_loras(wish: Wish, base: Shapes) -> tuple[Lora, ...]:
    prefer = ("generator_lora", *wish.prefer)
    return tuple(open_lora(open_source(path, prefer), base, strength) for path, strength in wish.loras)


def _config_beside(path: Path) -> dict[str, Any]:
    try:
        # Numbers that are none are refused by name, not with the whole file.
        return given_sizes(json.loads(read_regular(path.parent / "config.json", MAX_JSON_BYTES)))
    except (OSError, ValueError, RecursionError):
        return {}
