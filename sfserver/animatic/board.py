"""A timeline's file: read with suspicion, written whole or not at all.

What others wrote is checked before OpenTimelineIO sees it, which takes the process down with it where brackets are
nested too deep or an object holds itself.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import opentimelineio as otio
from attrs import frozen
from opentimelineio import schema

from ..errors import UserError
from ..media.files import appearing, begin
from . import adapters, bundle

MAX_BYTES = 256 * 1024**2
"""A timeline of 10,000 clips has about 20 MB."""
_MAX_DEPTH = 200
"""Of brackets in brackets. A stack in a stack adds four."""
_SUM = "timeline.json"
"""In the folder of the movies: what was written there last, so that another hand's work is not written over."""


class BoardError(UserError):
    """A timeline that cannot be read or written: one sentence with the remedy."""


@frozen(eq=False)
class Board:
    """A timeline and where its media are."""

    timeline: schema.Timeline
    path: Path
    folder: Path
    """What relative names of media are relative to."""


def read(path: Path, scratch: Path, rate: float = 24.0) -> Board:
    """`scratch`: an empty folder for what a bundle holds; `rate`: of files that say none. Raises BoardError."""
    try:
        if not path.is_file():
            missing = "there is no such file" if not path.exists() else "is no file"
            raise BoardError(f"{path}: {missing}; name a timeline, as in board.otio")
        if path.stat().st_size > MAX_BYTES and not is_bundle(path):
            raise BoardError(f"{path}: is {path.stat().st_size} bytes; at most {MAX_BYTES} are read")
        if adapters.is_known(path):
            return Board(_timeline(adapters.read(path, rate), path), path, path.parent)
        if is_bundle(path):
            text, folder = bundle.unpack(path, scratch, MAX_BYTES), scratch
        else:
            text, folder = path.read_bytes(), path.parent
    except OSError as error:
        raise BoardError(f"{path}: cannot be read ({(error.strerror or str(error)).lower()})") from None
    except (bundle.NoBundle, adapters.AdapterError) as error:
        raise BoardError(f"{path}: {error}") from None
    return Board(_parsed(text, path), path, folder)


def _parsed(text: bytes, path: Path) -> schema.Timeline:
    try:
        decoded = text.decode("utf-8-sig")
        table = json.loads(decoded)
        if _depth(table) > _MAX_DEPTH:
            raise RecursionError
        if _holds_itself(table):
            raise BoardError(f"{path}: holds something that holds itself; export it again")
    except RecursionError:
        raise BoardError(f"{path}: has brackets in brackets more than {_MAX_DEPTH} deep; export it again") from None
    except (UnicodeDecodeError, json.JSONDecodeError):
        raise BoardError(f"{path}: is no OpenTimelineIO file; export the timeline as .otio or .otioz") from None
    try:
        found = otio.adapters.read_from_string(decoded, "otio_json")
    except Exception as error:  # a boundary: pybind turns whatever C++ throws into whatever it likes
        raise BoardError(f"{path}: cannot be read ({_reason(error)}); export it again") from None
    return _timeline(found, path)


def _timeline(found: Any, path: Path) -> schema.Timeline:
    if isinstance(found, schema.SerializableCollection):
        timelines = [one for one in found if isinstance(one, schema.Timeline)]
        if len(timelines) != 1:
            raise BoardError(f"{path}: holds {len(timelines)} timelines; export the one that is meant")
        found = timelines[0]
    if not isinstance(found, schema.Timeline) or not isinstance(found.tracks, schema.Stack):
        raise BoardError(f"{path}: holds {_kind(found)} instead of a timeline; export a timeline")
    return found


def _depth(value: Any) -> int:
    """How deep lists and maps are nested, without recursion of its own; it stops counting beyond the limit."""
    depth, level = 0, [value]
    while depth <= _MAX_DEPTH and (level := [one for one in level if isinstance(one, dict | list)]):
        depth += 1
        level = [inner for outer in level for inner in (outer.values() if isinstance(outer, dict) else outer)]
    return depth


def _holds_itself(table: Any) -> bool:
    """Whether an object is named again inside of itself, which OpenTimelineIO would follow for ever."""
    todo: list[tuple[Any, frozenset[str]]] = [(table, frozenset())]
    while todo:
        value, around = todo.pop()
        if isinstance(value, list):
            todo += [(inner, around) for inner in value if isinstance(inner, dict | list)]
            continue
        if str(value.get("OTIO_SCHEMA", "")).startswith("SerializableObjectRef") and str(value.get("id")) in around:
            return True
        if "OTIO_REF_ID" in value:
            around |= {str(value["OTIO_REF_ID"])}
        todo += [(inner, around) for inner in value.values() if isinstance(inner, dict | list)]
    return False


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def _kind(found: Any) -> str:
    return f"a {found.schema_name()}" if isinstance(found, otio.core.SerializableObject) else "other JSON"


# Writing


def media_folder(out: Path) -> Path:
    """Where the movies of a filled timeline are."""
    return out.with_name(f"{out.stem}_inbetween")


def check_out(board: Path, out: Path, overwrite: bool) -> None:
    """Raises BoardError where `out` must not be written: what is there is another's, or was changed since."""
    if out.suffix.lower() not in (known := (".otio", bundle.SUFFIX, *adapters.FORMATS)):
        raise BoardError(f"{out}: timelines are written as {', '.join(known)}; choose such a name with --out")
    if out.exists() and (out.is_dir() or (board.exists() and os.path.samefile(board, out))):
        what = "is a folder" if out.is_dir() else "is the timeline that is read, which stays as it is"
        raise BoardError(f"{out}: {what}; choose another name with --out")
    if not out.exists() or overwrite:
        return
    known_sum = _sums(out).get(out.name)
    if known_sum != _sum(out):
        whose = "was changed since it was written" if known_sum else "is there already"
        raise BoardError(f"{out}: {whose}; choose another name with --out, or write over it with --overwrite")


def settle(board: Board, out: Path) -> None:
    """What the timeline names is found from where `out` will be. To be done before our own movies are put into it."""
    if is_bundle(out):
        return  # packing finds everything from where it is
    if adapters.is_known(out):
        _rebase(board.timeline, board.folder, None)
    elif is_bundle(board.path):
        bundle.take_out(board.timeline, board.folder, media_folder(out))
    elif not os.path.samefile(board.folder, out.parent):
        _rebase(board.timeline, board.folder, out.parent)


def write(board: Board, out: Path, rate: float = 24.0) -> list[str]:
    """Write the timeline and what `check_out` goes by. Returns notes. Raises MediaError and BoardError."""
    notes: list[str] = []
    if is_bundle(out):
        within = (board.folder, media_folder(out)) if is_bundle(board.path) else None
        notes = bundle.pack(board.timeline, board.folder, out, within)
    elif adapters.is_known(out):
        part = out.with_name(f".part-{out.name}")  # adapters go by the suffix
        try:
            begin(part)
            adapters.write(board.timeline, out, part, rate)
            os.replace(part, out)
        except adapters.AdapterError as error:
            raise BoardError(f"{out}: {error}") from None
        finally:
            part.unlink(missing_ok=True)
        notes = [f"{out.name}: the format keeps no {adapters.FORMATS[out.suffix.lower()].loses}"]
    else:
        with appearing(out) as part:
            part.write_text(board.timeline.to_json_string(indent=4), "utf-8")
    with appearing(media_folder(out) / _SUM) as part:
        part.write_text(json.dumps({**_sums(out), out.name: _sum(out)}), "utf-8")
    return notes


def is_bundle(path: Path) -> bool:
    return path.suffix.lower() == bundle.SUFFIX


def _sums(out: Path) -> dict[str, Any]:
    """Of the timelines that share this folder of movies, in several formats perhaps, by their names."""
    try:
        sums = json.loads((media_folder(out) / _SUM).read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return sums if isinstance(sums, dict) else {}


def _sum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _rebase(timeline: schema.Timeline, old: Path, new: Path | None) -> None:
    """Relative names lead to the same files from the new place; without one they are made absolute."""
    for media in bundle.references(timeline):
        if isinstance(media, schema.ExternalReference) and _is_relative(media.target_url):
            media.target_url = _moved(media.target_url, old, new)
        elif isinstance(media, schema.ImageSequenceReference) and _is_relative(media.target_url_base):
            media.target_url_base = _moved(media.target_url_base, old, new)


def _is_relative(url: str) -> bool:
    return bool(url) and ":" not in url.partition("/")[0] and not url.startswith(("/", "\\"))


def _moved(url: str, old: Path, new: Path | None) -> str:
    found = old / url if (old / url).exists() else old / unquote(url)
    if not found.exists():
        return url
    return _relative(found, new) if new else found.absolute().as_posix()


def _relative(path: Path, folder: Path) -> str:
    try:
        return Path(os.path.relpath(path.absolute(), folder.absolute())).as_posix()
    except ValueError:  # another drive
        return path.absolute().as_posix()


def url_of(movie: Path, out: Path, beside: str, style: str) -> str:
    """How the timeline names a movie: `style` is relative, absolute, or empty for as the clip beside it is named."""
    is_url = beside.startswith("file:") and not is_bundle(out)  # a bundle is packed from plain names
    if is_bundle(out) or adapters.is_known(out):
        style = "absolute"
    if style == "relative" or (not style and _is_relative(beside)):
        return _relative(movie, out.parent)
    absolute = movie.absolute().as_posix()
    return f"file://{absolute if absolute.startswith('/') else '/' + absolute}" if is_url else absolute
