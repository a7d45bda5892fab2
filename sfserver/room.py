"""How much disk a fetch takes: at its most, when a download and what it becomes lie side by side, and in the end."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from attrs import evolve, frozen

from .engine.capacity import VAE_PARAMETERS, dit_parameters
from .model.config import DitConfig

TEXT_PARAMETERS = 5_680_910_336
"""Of UMT5-XXL's encoder, its embedding among them."""
TAE_PARAMETERS = 11_300_000
CONVERTED_BYTES = 2
"""An element, in bfloat16."""


@frozen
class Item:
    """One part. Bytes."""

    files: Mapping[Path, int]
    """What is downloaded for it, each with its size."""
    there: int
    """Of these, on the disk already."""
    converted: int
    """Of what it becomes."""


def converted_bytes(role: str, config: DitConfig, downloaded: int) -> int:
    """About how large a part is once it is converted: never more than twice the download, were that in 8 bits."""
    base = dit_parameters(evolve(config, vace_layers=()))
    parameters = {
        "dit": base,
        "clean": base,
        "vace": dit_parameters(config) - base,
        "vae": VAE_PARAMETERS,
        "tae": TAE_PARAMETERS,
        "text": TEXT_PARAMETERS,
    }
    return min(CONVERTED_BYTES * parameters[role], 2 * downloaded) if role in parameters else downloaded


def most_bytes(items: Sequence[Item]) -> int:
    """The most that is on the disk at once beyond what is there now, if each download goes once its part stands.

    A file that several parts are made of stays until the last of them.
    """
    used = most = 0
    had: set[Path] = set()
    for i, item in enumerate(items):
        later = {path for one in items[i + 1 :] for path in one.files}
        new = {path: size for path, size in item.files.items() if path not in had}
        used += sum(new.values()) - (item.there if new else 0) + item.converted
        most = max(most, used)
        used -= sum(size for path, size in item.files.items() if path not in later)
        had |= item.files.keys()
    return most


def told(items: Sequence[Item]) -> str:
    """A line for whoever waits."""
    files = {path: size for item in items for path, size in item.files.items()}
    downloads = sum(files.values()) - sum(item.there for item in items)
    stays = sum(item.converted for item in items)
    return (
        f"downloads {downloads / 1e9:.1f} GB; takes {most_bytes(items) / 1e9:.1f} GB of disk at its most and "
        f"{stays / 1e9:.1f} GB in the end"
    )


def shortage(items: Sequence[Item], models_dir: Path, model: str) -> str | None:
    """The sentence for a disk that cannot hold it; None where it can."""
    existing = next(path for path in (models_dir, *models_dir.absolute().parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if free >= most_bytes(items):
        return None
    return (
        f"{model} {told(items)}; {models_dir} has {free / 1e9:.1f} GB free; make room, or set SFSERVER_MODELS_DIR to "
        "another disk"
    )
