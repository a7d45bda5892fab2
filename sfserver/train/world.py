"""A world of clips made by arithmetic: a shape goes from here to there, and the caption says how.

Two pictures and a sentence decide the clip. The same two pictures with another sentence are another clip, so a model
that ignores what it is told is wrong, and is seen to be. Every frame between the pictures is known exactly.

    scenes(...)    what stands still in a clip: ground, shape, colour, size, and both ends of the way
    track(...)     where the shape is in each frame, how large and how solid, for a verb
    render(...)    pixels
    captions(...)  sentences

Letters in shape comments: B clips, T frames, H W pixels. Colours are 0 to 1, lengths are pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from attrs import fields, frozen
from torch import Generator, Tensor

SIDE_PX = 64
FRAME_RATE = 24
CLIP_FRAMES = (18, 26, 34)
"""Lengths with both keyframes counted. The last frame of each is the first of its latent: a keyframe is held to the end
of its latent, and in 17 or 33 frames that would freeze the three frames before it."""

COLOURS = {
    "red": (0.90, 0.22, 0.18),
    "blue": (0.16, 0.36, 0.92),
    "yellow": (0.98, 0.82, 0.16),
    "green": (0.16, 0.66, 0.30),
    "white": (0.97, 0.97, 0.95),
    "pink": (0.96, 0.52, 0.74),
    "black": (0.11, 0.11, 0.14),
    "orange": (0.98, 0.54, 0.12),
}
GROUNDS = (
    ((0.66, 0.80, 0.90), (0.60, 0.68, 0.52)),
    ((0.93, 0.84, 0.70), (0.72, 0.58, 0.46)),
    ((0.30, 0.34, 0.50), (0.38, 0.36, 0.42)),
    ((0.80, 0.78, 0.86), (0.62, 0.60, 0.68)),
)
"""Sky and floor."""
HORIZON_PX = 46
SHAPES = ("ball", "box", "triangle")
LEAST_CONTRAST = 0.45
"""Distance in RGB between a shape and both halves of its ground. What contrasts less is lost in a small codec first."""

_PAIRS = [
    (colour, ground)
    for colour, rgb in enumerate(COLOURS.values())
    for ground, halves in enumerate(GROUNDS)
    if all(math.dist(rgb, half) > LEAST_CONTRAST for half in halves)
]


@frozen
class Verb:
    """What happens between the keyframes, over time t from 0 to 1, tensors in and out.

    All but `progress` begin and end with nothing: a verb never shows in the keyframes.
    """

    phrases: tuple[str, ...]
    progress: Callable[[Tensor], Tensor] = lambda t: t
    """Share of the way from the first place to the last."""
    fall_px: Callable[[Tensor], Tensor] = torch.zeros_like
    """How far below the straight way; above it is negative."""
    growth: Callable[[Tensor], Tensor] = torch.zeros_like
    """Size, beyond 1."""
    fading: Callable[[Tensor], Tensor] = torch.zeros_like
    """What is lost of being solid."""


def _arc(t: Tensor) -> Tensor:
    return torch.sin(math.pi * t)


def _smooth(t: Tensor) -> Tensor:
    t = t.clamp(0, 1)
    return t * t * (3 - 2 * t)


VERBS = {
    "rolls": Verb(("rolls straight across", "moves evenly across", "glides over")),
    "jumps": Verb(
        ("jumps across in one high arc", "leaps over to the other side", "jumps over"), fall_px=lambda t: -15 * _arc(t)
    ),
    "dips": Verb(("dips down and comes up again", "goes round below", "dives under"), fall_px=lambda t: 15 * _arc(t)),
    "bounces": Verb(
        ("bounces three times", "hops across in three hops", "bounces along"),
        fall_px=lambda t: -11 * torch.sin(3 * math.pi * t).abs(),
    ),
    "waits": Verb(
        ("waits and then darts across", "stays still, then rushes over", "waits, then runs"),
        progress=lambda t: _smooth((t - 0.5) / 0.5),
    ),
    "slows": Verb(
        ("starts fast and slows down", "darts off and then slows to rest", "rushes over, then brakes"),
        progress=lambda t: 1 - (1 - t) ** 3,
    ),
    "returns": Verb(
        ("runs ahead, comes back and goes on", "goes there and back, then there again", "turns back halfway"),
        progress=lambda t: t + 0.32 * torch.sin(2 * math.pi * t),
    ),
    "swells": Verb(("swells and becomes small again", "grows on the way", "puffs up"), growth=lambda t: 0.7 * _arc(t)),
    "shrinks": Verb(
        ("shrinks and grows back", "becomes tiny on the way", "gets small"), growth=lambda t: -0.5 * _arc(t)
    ),
    "fades": Verb(("fades away and comes back", "vanishes halfway", "turns invisible"), fading=lambda t: 0.9 * _arc(t)),
}
VERB_NAMES = tuple(VERBS)


@frozen(eq=False)
class Scenes:
    """What does not change within a clip, [B] each."""

    radius: Tensor
    x_start: Tensor
    x_end: Tensor
    y_start: Tensor
    y_end: Tensor
    colour: Tensor
    ground: Tensor
    shape: Tensor

    def __len__(self) -> int:
        return len(self.radius)

    def repeated(self, times: int) -> Scenes:
        """Each scene `times` times in a row."""
        return self._each(lambda x: x.repeat_interleave(times))

    def pick(self, rows: Tensor | slice) -> Scenes:
        return self._each(lambda x: x[rows])

    def _each(self, change: Callable[[Tensor], Tensor]) -> Scenes:
        return Scenes(*(change(getattr(self, a.name)) for a in fields(Scenes)))


def scenes(count: int, random: Generator) -> Scenes:
    """`count` scenes. Half of them go from right to left."""

    def between(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(count, generator=random)

    left, right = between(12, 19), between(45, 52)
    mirrored = torch.rand(count, generator=random) < 0.5
    y_start = between(28, 36)
    colour, ground = torch.tensor(_PAIRS)[torch.randint(len(_PAIRS), (count,), generator=random)].unbind(1)
    return Scenes(
        radius=between(7, 11),
        x_start=torch.where(mirrored, right, left),
        x_end=torch.where(mirrored, left, right),
        y_start=y_start,
        y_end=(y_start + between(-4, 4)).clamp(28, 36),
        colour=colour,
        ground=ground,
        shape=torch.randint(len(SHAPES), (count,), generator=random),
    )


@frozen(eq=False)
class Track:
    """Where the shape is and what it looks like, [B, T] each."""

    x: Tensor
    y: Tensor
    radius: Tensor
    solid: Tensor
    """1 is opaque."""


def track(scenes: Scenes, verbs: Tensor, num_frames: int) -> Track:
    """The way of each scene's shape under its verb [B], an index into VERB_NAMES. The ends are the keyframes'."""
    t = torch.linspace(0, 1, num_frames)
    columns = [torch.stack([getattr(verb, name)(t) for verb in VERBS.values()]) for name in _TIMELINES]
    progress, fall, growth, fading = (table[verbs] for table in columns)  # [B, T]

    def along(start: Tensor, end: Tensor) -> Tensor:
        return start[:, None] + (end - start)[:, None] * progress

    return Track(
        x=along(scenes.x_start, scenes.x_end),
        y=along(scenes.y_start, scenes.y_end) + fall,
        radius=scenes.radius[:, None] * (1 + growth),
        solid=1 - fading,
    )


_TIMELINES = ("progress", "fall_px", "growth", "fading")
_AXIS = torch.arange(SIDE_PX) + 0.5
_COLOURS = torch.tensor(list(COLOURS.values()))
_GROUNDS = torch.tensor(GROUNDS)


def grounds(scenes: Scenes) -> Tensor:
    """Pixels of the empty scenes [B, 1, 3, H, W]."""
    floor = (_AXIS > HORIZON_PX).float()[None, None, :, None]
    sky_and_floor = _GROUNDS[scenes.ground][..., None, None]  # [B, 2, 3, 1, 1]
    picture = sky_and_floor[:, 0] * (1 - floor) + sky_and_floor[:, 1] * floor
    return picture.expand(-1, -1, -1, SIDE_PX)[:, None]


def colours(scenes: Scenes) -> Tensor:
    """Of the shapes, [B, 1, 3, 1, 1]."""
    return _COLOURS[scenes.colour][:, None, :, None, None]


def covering(scenes: Scenes, track: Track) -> Tensor:
    """How much of each pixel the shape covers, [B, T, 1, H, W]; edges are a pixel soft."""
    x, y, r, solid = (value[..., None, None] for value in (track.x, track.y, track.radius, track.solid))
    dx, dy = _AXIS - x, _AXIS[:, None] - y
    ball = (dx * dx + dy * dy).sqrt() - r
    box = torch.maximum(dx.abs(), dy.abs()) - 0.86 * r
    slope = math.sqrt(3) / 2
    triangle = torch.maximum(torch.maximum(dy, slope * dx - dy / 2), -slope * dx - dy / 2) - 0.62 * r
    shape = scenes.shape[:, None, None, None]
    outside = torch.where(shape == 0, ball, torch.where(shape == 1, box, triangle))  # distance to the edge
    return ((0.5 - outside).clamp(0, 1) * solid)[:, :, None]


def render(scenes: Scenes, track: Track) -> Tensor:
    """Pixels [B, T, 3, H, W], 0 to 1."""
    cover = covering(scenes, track)
    return grounds(scenes) * (1 - cover) + colours(scenes) * cover


@frozen(eq=False)
class Clips:
    """A batch of the world."""

    scenes: Scenes
    verbs: Tensor
    """[B], indices into VERB_NAMES."""
    track: Track
    pixels: Tensor
    """[B, T, 3, H, W], 0 to 1."""


def clips(count: int, num_frames: int, random: Generator) -> Clips:
    """Random scenes, each with a random verb."""
    return of_verbs(scenes(count, random), torch.randint(len(VERBS), (count,), generator=random), num_frames)


def all_verbs(count: int, num_frames: int, random: Generator) -> Clips:
    """`count` scenes, each under every verb in turn: the same keyframes again and again."""
    return of_verbs(scenes(count, random).repeated(len(VERBS)), torch.arange(len(VERBS)).repeat(count), num_frames)


def of_verbs(scenes: Scenes, verbs: Tensor, num_frames: int) -> Clips:
    way = track(scenes, verbs, num_frames)
    return Clips(scenes, verbs, way, render(scenes, way))


def subject(scenes: Scenes, row: int) -> str:
    return f"a {list(COLOURS)[int(scenes.colour[row])]} {SHAPES[int(scenes.shape[row])]}"


def caption(scenes: Scenes, row: int, verb: str, phrase: int = 0) -> str:
    """What a person would write: "a red ball jumps over"."""
    return f"{subject(scenes, row)} {VERBS[verb].phrases[phrase]}"


def captions(clips: Clips, random: Generator) -> list[str]:
    """A sentence for each clip; one in three leaves the colour out, one in six says only it."""
    picks = torch.randint(6, (len(clips.verbs), 2), generator=random).tolist()
    return [_sentence(clips.scenes, row, int(verb), *picks[row]) for row, verb in enumerate(clips.verbs)]


def _sentence(scenes: Scenes, row: int, verb: int, phrase: int, form: int) -> str:
    phrases = VERBS[VERB_NAMES[verb]].phrases
    said = phrases[phrase % len(phrases)]
    subjects = (subject(scenes, row), f"the {SHAPES[int(scenes.shape[row])]}", "it")
    return f"{subjects[(0, 0, 0, 1, 1, 2)[form]]} {said}"


def every_caption() -> Sequence[str]:
    """Each sentence that the world can say, for a vocabulary and a table of embeddings."""
    subjects = [f"a {colour} {shape}" for colour in COLOURS for shape in SHAPES]
    subjects += [f"the {shape}" for shape in SHAPES] + ["it"]
    return [f"{who} {phrase}" for who in subjects for verb in VERBS.values() for phrase in verb.phrases]
