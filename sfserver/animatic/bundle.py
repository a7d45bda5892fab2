"""An .otioz: a zip with the timeline as content.otio and its media beside it in media/.

OpenTimelineIO's own writer turns what it cannot find into missing media and drops image sequences; a timeline must come
out as it went in, so what cannot be taken along keeps its name here, and is said.
"""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Collection, Iterator
from pathlib import Path, PurePosixPath
from urllib.parse import quote

from opentimelineio import schema
from opentimelineio.core import MediaReference

from ..media.files import appearing
from .moments import NoPicture, local_path

SUFFIX = ".otioz"
_CONTENT, _VERSION, _MEDIA = "content.otio", "version.txt", "media"
_VERSION_TEXT = "1.0.0"
_SPARE_BYTES = 1024**3
"""Left on the disk when a bundle is unpacked."""


class NoBundle(ValueError):
    """Why a file is no bundle that can be read; the end of a sentence."""


def unpack(path: Path, folder: Path, max_timeline_bytes: int) -> bytes:
    """The media into `folder`, and the timeline's text. Raises NoBundle and OSError."""
    try:
        with zipfile.ZipFile(path) as packed:
            entries = packed.infolist()
            content = next((entry for entry in entries if entry.filename == _CONTENT), None)
            if content is None:
                raise NoBundle(f"holds no {_CONTENT}; export it again as .otioz")
            if content.file_size > max_timeline_bytes:
                raise NoBundle(f"its {_CONTENT} has {content.file_size} bytes; at most {max_timeline_bytes} are read")
            media = [entry for entry in entries if _is_media(entry)]
            needed, free = sum(entry.file_size for entry in media), shutil.disk_usage(folder).free - _SPARE_BYTES
            if needed > free:
                raise NoBundle(f"its media need {needed} bytes, {max(0, free)} are free in {folder}; make room")
            for entry in media:
                packed.extract(entry, folder)
            return packed.read(content)
    except (OSError, NoBundle):
        raise
    except Exception as error:  # a boundary: what unpacking raises about damaged bytes is not a documented set
        raise NoBundle(f"is no zip file that can be read ({str(error).lower()}); export it again as .otioz") from None


def _is_media(entry: zipfile.ZipInfo) -> bool:
    parts = PurePosixPath(entry.filename).parts
    return parts[:1] == (_MEDIA,) and ".." not in parts and not entry.is_dir()  # which fails where there is no name


def pack(timeline: schema.Timeline, folder: Path, out: Path, within: tuple[Path, ...] | None = None) -> list[str]:
    """Write `out` with every file that the timeline names; `folder` is what relative names are of. Returns notes.

    `within`: what a bundle from somebody else may name; it could ask for any file of this machine to be taken along.
    """
    names: dict[Path, str] = {}
    notes: list[str] = []
    for media in references(timeline):
        if isinstance(media, schema.ImageSequenceReference):
            notes.append(f"the image sequence {media.name_prefix}* stays outside of {out.name}, which holds only files")
        elif (file := _file(media, folder, within)) is not None:
            if file not in names:
                names[file] = _unused(file.name, set(names.values()))
            media.target_url = f"{_MEDIA}/{quote(names[file])}"
    with appearing(out) as part, zipfile.ZipFile(part, "w") as packed:
        packed.writestr(_VERSION, _VERSION_TEXT, zipfile.ZIP_DEFLATED)
        packed.writestr(_CONTENT, timeline.to_json_string(indent=4), zipfile.ZIP_DEFLATED)
        for file, name in names.items():
            packed.write(file, f"{_MEDIA}/{name}", zipfile.ZIP_STORED)
    return list(dict.fromkeys(notes))


def take_out(timeline: schema.Timeline, folder: Path, to: Path) -> None:
    """The files that the timeline names inside of `folder` are copied to `to`, beside the timeline, and named there."""
    names: dict[Path, str] = {}
    to.mkdir(exist_ok=True)
    for media in references(timeline):
        file = _file(media, folder, (folder,))
        if file is None:
            continue
        if file not in names:
            names[file] = _unused(file.name, set(names.values()))
            with appearing(to / names[file]) as part:
                shutil.copyfile(file, part)
        media.target_url = f"{quote(to.name)}/{quote(names[file])}"


def references(timeline: schema.Timeline) -> Iterator[MediaReference]:
    """Every media reference of every clip, those that are not in use as well."""
    for clip in timeline.find_clips():
        yield from clip.media_references().values()


def _file(media: MediaReference, folder: Path, within: tuple[Path, ...] | None) -> Path | None:
    """The file that is there and may be taken along."""
    if not isinstance(media, schema.ExternalReference):
        return None
    try:
        file = local_path(media.target_url, folder).resolve()
        allowed = within is None or any(file.is_relative_to(place.resolve()) for place in within)
        return file if allowed and file.is_file() else None
    except (NoPicture, OSError):
        return None


def _unused(name: str, taken: Collection[str]) -> str:
    stem, suffix, number = PurePosixPath(name).stem, PurePosixPath(name).suffix, 1
    while name in taken:
        number += 1
        name = f"{stem}-{number}{suffix}"
    return name
