"""Which weights an engine's frames come from, by hash, for recipes. Read from manifests: nothing is loaded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from ..config import ServerConfig
from ..weights import WeightsError
from ..weights.manifest import describe_folder
from . import draft, presets, small_world, wan


def weights_of(engine_id: str, config: ServerConfig, folder: Path | None = None) -> Mapping[str, str]:
    """SHA-256 by role, as the files' manifests say. `folder`: weights that were given in place of an id.

    Parts that a model can do without are named where they are there. Empty for an engine that has no files.
    """
    if engine_id == draft.ID:
        return {"flownet": draft.WEIGHTS_SHA256}
    preset = presets.find(engine_id)
    if engine_id == small_world.ID:
        return dict(_all_of(small_world.FOLDER))
    if preset is not None:
        places = ((part.role, config.models_dir / part.path) for part in preset.parts if part.role != "lora")
        return {role: found for role, path in places if (found := dict(_all_of(path.parent)).get(role))}
    own = folder or wan.own_folder(engine_id, config)
    return dict(_all_of(own)) if own is not None else {}


def _all_of(folder: Path) -> Iterator[tuple[str, str]]:
    try:
        components = describe_folder(folder).components
    except WeightsError:  # an engine that is not complete refuses by itself
        return
    for role, component in sorted(components.items()):
        yield role, component.sha256
