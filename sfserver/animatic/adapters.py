"""Timelines in other editors' own formats, by OpenTimelineIO's adapters: the extra `editors`.

An adapter is trusted with nothing: what it wrote is read again and compared before the file appears, for no timeline is
better than a wrong one.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import opentimelineio as otio
from attrs import frozen
from opentimelineio import schema

REMEDY = "pip install 'sfserver[editors]'"


@frozen
class Format:
    """What one adapter can do."""

    adapter: str
    title: str
    loses: str
    needs_rate: bool = False
    """The file does not say how many frames a second its timecode counts."""


FORMATS = {
    ".kdenlive": Format("kdenlive", "Kdenlive", "metadata, effects and markers that are no guides; image sequences"),
    ".xml": Format("fcp_xml", "Final Cut Pro 7 XML, also Premiere's", "metadata and image sequences"),
    ".edl": Format("cmx_3600", "EDL, CMX 3600", "all but one video track, markers and metadata", needs_rate=True),
}
"""Each came back from a round trip with every clip in its place, at every rate; `.fcpxml` does not at 23.976 and
29.97 (adapter 1.0.0 cannot read what it wrote), and is not here."""
_LOST_S = Fraction(1, 10_000)
"""Of a second: what a format may round."""


class AdapterError(ValueError):
    """The end of a sentence about the file."""


def is_known(path: Path) -> bool:
    return path.suffix.lower() in FORMATS


def read(path: Path, rate: float) -> Any:
    """What the adapter makes of the file. Raises AdapterError."""
    form = _installed(path)
    with _foreign("cannot be read as", form):
        if form.adapter == "fcp_xml":
            _check_places(ElementTree.parse(path).getroot())
        found = otio.adapters.read_from_file(str(path), form.adapter, **_options(form, rate))
        for marker in _markers(found):  # where Premiere keeps what was written into a marker
            comment = marker.metadata.get(form.adapter, {}).get("comment")
            marker.comment = marker.comment or (comment if isinstance(comment, str) else "")
        return found


def _markers(found: Any) -> Iterator[schema.Marker]:
    """Of a timeline: its guides, and those of its tracks and of all that stands on them."""
    if isinstance(found, schema.Timeline):
        yield from found.tracks.markers
        for item in found.tracks.find_children(descended_from_type=otio.core.Item):
            yield from item.markers


def _as_kept(timeline: schema.Timeline, form: Format) -> schema.Timeline:
    """A copy, its markers' comments where the format has a place for them: both adapters write a name alone."""
    copy = timeline.deepcopy()
    for marker in _markers(copy):
        if marker.comment and form.adapter == "kdenlive":
            marker.name = marker.comment
        elif marker.comment:
            marker.metadata[form.adapter] = {**marker.metadata.get(form.adapter, {}), "comment": marker.comment}
    return copy


def _check_places(root: ElementTree.Element) -> None:
    """Raises ValueError where two clips of a track are at one place: the adapter would move the second one behind the
    first, and all that follows with it. The others refuse it, or cannot say it."""
    for track in root.iter("track"):
        until, before = 0, ""
        for clip in track.findall("clipitem"):
            start, end = (int(clip.findtext(name) or -1) for name in ("start", "end"))
            name = clip.findtext("name") or clip.get("id") or "a clip without a name"
            if 0 <= start < until:
                raise ValueError(f"{name!r} is at the same place as {before!r}")
            if end >= 0:  # at a transition it says -1
                until, before = end, name


def write(timeline: schema.Timeline, path: Path, part: Path, rate: float) -> None:
    """Into `part`, for `path`. Raises AdapterError, also where what was written is not what was meant."""
    form = _installed(path)
    with _foreign("cannot be written as", form):
        otio.adapters.write_to_file(_as_kept(timeline, form), str(part), form.adapter, **_options(form, rate))
        again = otio.adapters.read_from_file(str(part), form.adapter, **_options(form, rate))
    if not isinstance(again, schema.Timeline) or _shape(again) != _shape(timeline):
        raise AdapterError(f"would not come out as it is in {form.title}; choose a name that ends in .otio with --out")


def _installed(path: Path) -> Format:
    form = FORMATS[path.suffix.lower()]
    if form.adapter not in otio.adapters.available_adapter_names():
        raise AdapterError(f"{form.title} needs an adapter that is not installed: {REMEDY}")
    return form


def _options(form: Format, rate: float) -> dict[str, Any]:
    return {"rate": rate} if form.needs_rate else {}


@contextlib.contextmanager
def _foreign(what: str, form: Format) -> Iterator[None]:
    """Adapters print, warn, and raise whatever they like about files of strangers."""
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise AdapterError(f"{what} {form.title} ({reason}); export .otio instead") from None


def _shape(timeline: schema.Timeline) -> list[list[tuple[str, int, int, str]]]:
    """What must not change: on every track what stands where, how long, and which file it shows."""
    tracks = [_items(track) for kind in ("Video", "Audio") for track in timeline.tracks if track.kind == kind]
    return sorted(items for items in tracks if items)


def _items(track: schema.Track) -> list[tuple[str, int, int, str]]:
    found: list[tuple[str, int, int, str]] = []
    for item in track:
        if isinstance(item, schema.Transition):
            found.append(("Transition", 0, 0, ""))
            continue
        shown, is_gap = item.trimmed_range(), isinstance(item, schema.Gap)
        media = getattr(item, "media_reference", None)
        file = Path(getattr(media, "target_url", "") or "").name
        start = 0 if is_gap else _ticks(shown.start_time)
        if is_gap and found and found[-1][0] == "Gap":
            found[-1] = ("Gap", 0, found[-1][2] + _ticks(shown.duration), "")
        elif _ticks(shown.duration):
            found.append((type(item).__name__, start, _ticks(shown.duration), file))
    while found and found[-1][0] == "Gap":  # some formats end with one, some with none
        found.pop()
    return found


def _ticks(time: otio.opentime.RationalTime) -> int:
    return round(Fraction(time.to_seconds()) / _LOST_S)
