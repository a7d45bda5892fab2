"""model.json: what a converted model folder holds. Written by `convert`, read by everyone, without torch.

A folder has at most one component of each role:

    dit          the transformer             text        the text encoder
    vace         its VACE branch             tokenizer   the text encoder's vocabulary
    vae          pictures <-> latents        tae         the same, tiny
    clean        a second transformer, for clean passes
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import attrs
import cattrs
from attrs import field, frozen

from .files import WeightsError, read_json

MANIFEST_NAME = "model.json"
FORMAT = 1
FILE_OF_ROLE = {
    "dit": "dit.safetensors",
    "clean": "clean.safetensors",
    "vace": "vace.safetensors",
    "vae": "vae.safetensors",
    "tae": "tae.safetensors",
    "text": "text.safetensors",
    "tokenizer": "tokenizer/spiece.model",
}
"""Where a folder keeps each role."""


@frozen
class Component:
    """One file of a model folder."""

    file: str = field(validator=attrs.validators.in_(FILE_OF_ROLE.values()))
    """Relative to the folder."""
    bytes: int
    sha256: str
    config: Mapping[str, Any]
    """Sizes of the network, as its config class takes them; heads and the like are in no tensor's shape."""
    dialect: str
    """How the published file was laid out, in words."""
    source: str
    """Name of the published file."""
    dtype: str
    """Of the large matrices."""
    mtime_ns: int = 0
    """When the file was written. While that and the length are unchanged, its hash is not computed again."""
    loras: tuple[str, ...] = ()
    """What was merged into it, in order."""


@frozen
class Manifest:
    """What one folder holds."""

    preset: str = ""
    """Id of the preset that says how to sample it; empty for a folder of shared parts."""
    components: Mapping[str, Component] = field(factory=dict[str, Component])
    """By role."""
    format: int = FORMAT

    @property
    def total_bytes(self) -> int:
        return sum(component.bytes for component in self.components.values())


def describe_folder(folder: Path) -> Manifest:
    """What `folder` says it holds. Raises WeightsError where it says nothing, or nothing that we can read."""
    path = folder / MANIFEST_NAME
    try:
        table = read_json(path)
    except FileNotFoundError:
        raise WeightsError(
            f"{folder}: is no model folder ({MANIFEST_NAME} is missing); run: sfserver convert"
        ) from None
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise WeightsError(f"{path}: is not JSON ({error}); convert or fetch the model again") from None
    if not isinstance(table, dict):
        raise WeightsError(f"{path}: does not describe a model; convert or fetch it again")
    if isinstance(table.get("format"), int) and table["format"] > FORMAT:
        raise WeightsError(f"{path}: has format {table['format']}, this version reads {FORMAT}; update sfserver")
    try:
        return cattrs.structure(table, Manifest)
    except (cattrs.BaseValidationError, KeyError, TypeError, ValueError):
        raise WeightsError(f"{path}: does not describe a model; convert or fetch it again") from None


def problem(path: Path, role: str) -> str | None:
    """What speaks against the component `role` at `path`, in one sentence, or None. Reads its folder's manifest only.

    `path` is the file itself, for a tokenizer its folder.
    """
    folder = path.parent
    if not path.exists():
        return f"{path} is not there"
    try:
        component = describe_folder(folder).components.get(role)
    except WeightsError as error:
        return str(error)
    if component is None:
        return f"{folder / MANIFEST_NAME}: knows of no {role}; convert or fetch it again"
    return size_problem(folder, component)


def size_problem(folder: Path, component: Component) -> str | None:
    """A file that is gone or has another length than was written."""
    path = folder / component.file
    try:
        size = path.stat().st_size
    except OSError:
        return f"{path} is not there"
    if size != component.bytes:
        return f"{path}: has {size} bytes where {component.bytes} were written; convert or fetch it again"
    return None


def part_of(folder: Path, file: str) -> Path:
    """Where a file of the folder is written, before it takes its place."""
    return folder / f"{Path(file).name}.part"


def write_manifest(folder: Path, manifest: Manifest, files: Iterable[str] = ()) -> None:
    """Replace the folder's manifest, and with it those of its `files` that lie ready in their parts. Raises OSError.

    Nothing is left to write when the first one takes its place: what can fail from there on is a rename.
    """
    temporary = part_of(folder, MANIFEST_NAME)
    try:
        temporary.write_text(json.dumps(cattrs.unstructure(manifest), indent=2, sort_keys=True), "utf-8")
        for file in files:
            (folder / file).parent.mkdir(exist_ok=True)
            os.replace(part_of(folder, file), folder / file)
        os.replace(temporary, folder / MANIFEST_NAME)
    finally:
        temporary.unlink(missing_ok=True)


def merged(folder: Path, components: Mapping[str, Component], preset: str) -> Manifest:
    """The folder's manifest with `components` added to it or put in place of older ones."""
    exists = (folder / MANIFEST_NAME).exists()
    known = describe_folder(folder) if exists else Manifest()
    return Manifest(preset=preset or known.preset, components={**known.components, **components})
