"""What is to fill in a timeline, and what is not and why. Nothing is opened and nothing changed here.

A hole is what stands between two pictures on a video track: gaps, or a clip that was made here before. With a hold it
is also the end of a still that another picture follows at once.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from fractions import Fraction
from pathlib import Path

from attrs import field, frozen
from opentimelineio import opentime, schema
from opentimelineio.core import Composable, Item
from opentimelineio.exceptions import OTIOError
from sfwire.limits import MAX_FRAMES

from . import rates, words
from .moments import Moment, NoPicture, first, is_held, last
from .rates import OddTime
from .words import Said, Words

MARK = "sfserver"
"""Key of our own in a clip's metadata."""
MOST_FRAMES = MAX_FRAMES - 2
"""In one hole; both keyframes are counted in a clip, and stay outside."""


@frozen(eq=False)
class Hole:
    """A stretch to fill."""

    name: str
    """As a person finds it: where it begins, on which track, how long."""
    track: schema.Track
    at: int
    """Index in the track of the first of `items`; for a hold, behind the still."""
    items: tuple[Item, ...]
    """What stands there now; nothing for a hold."""
    before: schema.Clip
    num_frames: int
    rate: float
    """As the timeline writes it. `rates.exact` is the fraction."""
    first: Moment
    """The picture that is seen last before it."""
    last: Moment
    """The picture that is seen first after it."""
    words: Words
    markers: tuple[schema.Marker, ...] = ()
    """Those in it, in the time of the clip that will be there, which begins at 0."""
    is_hold: bool = False

    @property
    def made_before(self) -> schema.Clip | None:
        """The clip of ours that stands there."""
        only = self.items[0] if len(self.items) == 1 else None
        return only if isinstance(only, schema.Clip) else None


@frozen
class Unfilled:
    """What looks like something to fill and is left as it is. `why` is the end of a sentence."""

    name: str
    why: str

    def __str__(self) -> str:
        return f"{self.name}: {self.why}"


@frozen(eq=False)
class _Context:
    """Of one track: what the walk along it needs."""

    stack: schema.Stack
    track: schema.Track
    name: str
    folder: Path
    hold: int
    starts: tuple[Fraction | None, ...] = field(default=())
    """Of each child in seconds of the track; None behind something without a length."""


def find(
    timeline: schema.Timeline, folder: Path, hold: int = 0, tracks: Collection[str] = ()
) -> tuple[list[Hole], list[Unfilled]]:
    """All of them, track by track. Relative names are of `folder`; `tracks` are names or numbers, all where empty."""
    holes: list[Hole] = []
    unfilled: list[Unfilled] = []
    number = 0
    for track in timeline.tracks.find_children(descended_from_type=schema.Track):
        if track.kind != schema.TrackKind.Video:
            continue
        number += 1
        if tracks and not {track.name, str(number), f"V{number}"} & set(tracks):
            continue
        context = _Context(timeline.tracks, track, track.name or f"V{number}", folder, hold, _starts(track))
        for found in _along(context):
            (holes if isinstance(found, Hole) else unfilled).append(found)  # type: ignore[arg-type]
    return holes, unfilled


def _along(context: _Context) -> Iterator[Hole | Unfilled]:
    children = list(context.track)
    at = 0
    while at < len(children):
        if _is_open(children[at]):
            end = next((i for i in range(at, len(children)) if not _is_open(children[i])), len(children))
            yield from _gap(context, children, at, end)
            at = end
        else:
            if context.hold and at + 1 < len(children):
                yield from _hold(context, children, at)
            at += 1


def _is_open(child: Composable) -> bool:
    return isinstance(child, schema.Gap) or is_ours(child)


def is_ours(child: Composable) -> bool:
    """A clip that was put there by us, and still says so."""
    return isinstance(child, schema.Clip) and isinstance(child.metadata.get(MARK), dict | _AnyDictionary)


_AnyDictionary = type(schema.Clip().metadata)


def _gap(context: _Context, children: list[Composable], at: int, end: int) -> Iterator[Hole | Unfilled]:
    items = tuple(child for child in children[at:end] if isinstance(child, Item))
    rate = items[0].trimmed_range().duration.rate if items[0].source_range else 0.0
    name = _name(context, at, rate, "gap")
    try:
        exact = rates.exact(rate)
        lengths = [rates.seconds(item.trimmed_range().duration) for item in items]
        total = sum(lengths, Fraction(0))
        if total == 0:
            return
        num_frames = _whole(total, exact)
        before = _neighbour(children, at - 1, "before")
        after = _neighbour(children, end, "after")
        ends = _ends(before, after, exact, context.folder)
        markers, said = _marked(context, items, lengths, at, rate)
        of_gap = words.of_gap([*said, *_above(context, at, total)], exact, before)
    except (OddTime, NoPicture, OTIOError) as error:
        yield Unfilled(name, str(error))
        return
    yield Hole(
        f"{name}, {num_frames} frames", context.track, at, items, before, num_frames, rate, *ends, of_gap, markers
    )


def _hold(context: _Context, children: list[Composable], at: int) -> Iterator[Hole | Unfilled]:
    before, after = children[at], children[at + 1]
    if not isinstance(before, schema.Clip) or not isinstance(after, schema.Clip) or is_ours(after):
        return
    name = f"hold of {_called(before)}, {_name(context, at, 0.0, 'which begins')}"
    try:
        if not is_held(before, context.folder):
            return  # a movie moves by itself
        shown = before.trimmed_range()
        rate, exact = shown.duration.rate, rates.exact(shown.duration.rate)
        held = rates.frames(rates.seconds(shown.duration), exact)
        if held is None or held <= context.hold:
            lasts = float(rates.seconds(shown.duration) * exact)
            raise NoPicture(f"lasts {lasts:g} frames, so there are no {context.hold} to take and one to stay")
        ends = _ends(before, after, exact, context.folder, context.hold)
        start = rates.seconds(shown.start_time) + (held - context.hold) / exact
    except (OddTime, NoPicture, OTIOError) as error:
        yield Unfilled(name, str(error))
        return
    taken = context.hold / exact
    said = [
        *words.between(before.markers, start, taken),
        *_above(context, at, taken, (held - context.hold) / exact),
    ]
    back = opentime.RationalTime(float(-start * exact), rate)
    yield Hole(
        f"{name}, its last {context.hold} frames",
        context.track,
        at + 1,
        (),
        before,
        context.hold,
        rate,
        *ends,
        words.of_gap(said, exact, before, taken),
        tuple(words.shifted(m, back) for m in before.markers if words.begins_within(m, start, taken)),
        is_hold=True,
    )


def _ends(before: schema.Clip, after: schema.Clip, rate: Fraction, folder: Path, cut: int = 0) -> tuple[Moment, Moment]:
    """The pictures on both sides. Raises NoPicture that names the clip."""
    moments: list[Moment] = []
    for clip in (before, after):
        try:
            moment = last(clip, rate, folder, cut) if clip is before else first(clip, folder)
            if not moment.path.exists():
                raise NoPicture(f"has its media at {moment.path}, where nothing is")
        except (NoPicture, OSError) as error:
            raise NoPicture(f"{_called(clip)} {error}") from None
        moments.append(moment)
    return moments[0], moments[1]


def _neighbour(children: list[Composable], at: int, side: str) -> schema.Clip:
    """Raises NoPicture, saying what is there instead of a clip."""
    if not 0 <= at < len(children):
        raise NoPicture(f"nothing stands {side} it")
    child = children[at]
    if isinstance(child, schema.Clip):
        return child
    if isinstance(child, schema.Transition):
        raise NoPicture(f"a transition stands {side} it")
    raise NoPicture(f"{child.name or 'a nested timeline'} {side} it is no single picture; render it first")


def _whole(duration: Fraction, rate: Fraction) -> int:
    count = rates.frames(duration, rate)
    if count is None:
        raise OddTime(f"is {float(duration * rate):.2f} frames long; make it a whole number")
    if not 1 <= count <= MOST_FRAMES:
        raise OddTime(f"is {count} frames long; 1 to {MOST_FRAMES} can be made at once")
    return count


def _marked(
    context: _Context, items: tuple[Item, ...], lengths: list[Fraction], at: int, rate: float
) -> tuple[tuple[schema.Marker, ...], list[Said]]:
    """The gaps' own markers, in the time of the clip to come, and what they say."""
    markers: list[schema.Marker] = []
    passed = Fraction(0)
    for item, duration in zip(items, lengths, strict=True):
        start = rates.seconds(item.trimmed_range().start_time)
        by = opentime.RationalTime(float((passed - start) * rates.exact(rate)), rate)
        markers += [words.shifted(marker, by) for marker in item.markers]
        passed += duration
    return tuple(markers), list(words.between(markers, Fraction(0), passed))


def _above(context: _Context, at: int, duration: Fraction, into: Fraction = Fraction(0)) -> list[Said]:
    """What markers of the track and of the whole timeline (guides) say of the `duration` from `into` child `at` on."""
    start = context.starts[at]
    if start is None:
        return []
    said = list(words.between(context.track.markers, start + into, duration))
    begins = opentime.RationalTime(float(start + into), 1)
    try:
        there = context.track.transformed_time(begins, context.stack)
    except OTIOError:
        return said
    return said + list(words.between(context.stack.markers, rates.seconds(there), duration))


def _starts(track: schema.Track) -> tuple[Fraction | None, ...]:
    starts: list[Fraction | None] = []
    now: Fraction | None = Fraction(0)
    for child in track:
        starts.append(now)
        if now is not None and isinstance(child, Item):
            try:
                now += rates.seconds(child.duration())
            except (OddTime, OTIOError):
                now = None
    return tuple(starts)


def _name(context: _Context, at: int, rate: float, what: str) -> str:
    start = context.starts[at]
    if start is None:
        return f"{what} {at + 1} on {context.name}"
    try:
        return f"{what} at {rates.place(start, rate or _rate(context.track))} on {context.name}"
    except OddTime:
        return f"{what} {at + 1} on {context.name}"


def _rate(track: schema.Track) -> float:
    return next((c.source_range.duration.rate for c in track if isinstance(c, Item) and c.source_range), 24.0)


def _called(clip: schema.Clip) -> str:
    return repr(clip.name) if clip.name else "a clip without a name"
