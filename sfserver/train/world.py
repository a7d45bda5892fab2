"""A world of clips made by arithmetic: a shape goes from here to there, and the caption says how.

Up to two others stand by, and in some scenes a post stands before it all. Two pictures and a sentence decide the clip.
The same two pictures with another sentence are another clip, so a model that ignores what it is told is wrong, and is
seen to be. Every frame between the pictures is known exactly. Some sentences leave one thing open (`verbs.OPEN`).

    scenes(...)    what does not change in a clip: ground, who moves, who stands by, and both ends of the way
    track(...)     where the shape is in each frame, how large and how solid, for a verb
    render(...)    pixels
    captions(...)  sentences

Letters in shape comments: B clips, T frames, H W pixels. Colours are 0 to 1, lengths are pixels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cache

import torch
from attrs import fields, frozen
from torch import Generator, Tensor

from .shapes import SHAPE_NAMES, TURNING, TURNING_TWICE, outside
from .verbs import OPEN, OTHERS, VERB_NAMES, VERBS, open_phrases, timelines

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
LEAST_CONTRAST = 0.45
"""Distance in RGB between a shape and whatever it passes. What contrasts less is lost in a small codec first."""
POST_COLOUR = (0.36, 0.26, 0.20)
POST_TOP_PX, POST_HALF_PX = 8.0, 9.0
FLOOR_LINE_PX = 52.0
"""Where bystanders stand."""
BYSTANDERS = 2

_RGB = tuple(COLOURS.values())
_PAIRS = [
    (colour, ground)
    for colour, rgb in enumerate(_RGB)
    for ground, halves in enumerate(GROUNDS)
    if all(math.dist(rgb, half) > LEAST_CONTRAST for half in halves)
]
_BESIDE = [
    [other for other, there in _PAIRS if there == ground and math.dist(_RGB[other], _RGB[colour]) > LEAST_CONTRAST]
    for colour, ground in _PAIRS
]
"""Of each pair, the colours that a bystander may have."""


@frozen(eq=False)
class Scenes:
    """What does not change within a clip, [B] each; of bystanders [B, BYSTANDERS], colour -1 where there is none."""

    radius: Tensor
    x_start: Tensor
    x_end: Tensor
    y_start: Tensor
    y_end: Tensor
    colour: Tensor
    ground: Tensor
    shape: Tensor
    post: Tensor
    """bool: whether one stands in the middle, before everything else."""
    by_x: Tensor
    by_radius: Tensor
    by_colour: Tensor
    by_shape: Tensor

    def __len__(self) -> int:
        return len(self.radius)

    def pick(self, rows: Tensor | slice) -> Scenes:
        return Scenes(*(getattr(self, a.name)[rows] for a in fields(Scenes)))

    @property
    def facing(self) -> Tensor:
        """1 to the right, -1 to the left, [B]."""
        return torch.where(self.x_end > self.x_start, 1.0, -1.0)


def scenes(count: int, random: Generator) -> Scenes:
    """`count` scenes. Half of them go from right to left, three in ten have a post, and every other one bystanders."""

    def between(low: float | Tensor, high: float | Tensor, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(count, *shape, generator=random)

    def chance(share: float, *shape: int) -> Tensor:
        return torch.rand(count, *shape, generator=random) < share

    post, mirrored = chance(0.3), chance(0.5)
    # what goes behind a post must be clear of it at both ends, and small enough to vanish
    left = torch.where(post, between(9, 13), between(12, 19))
    right = torch.where(post, between(51, 55), between(45, 52))
    y_start = between(28, 36)
    pair = torch.randint(len(_PAIRS), (count,), generator=random)
    colour, ground = torch.tensor(_PAIRS)[pair].unbind(1)
    there = torch.stack((chance(0.5), chance(0.25)), 1)
    return Scenes(
        radius=torch.where(post, between(6.5, 8), between(7, 11)),
        x_start=torch.where(mirrored, right, left),
        x_end=torch.where(mirrored, left, right),
        y_start=y_start,
        y_end=(y_start + between(-4, 4)).clamp(28, 36),
        colour=colour,
        ground=ground,
        shape=torch.randint(len(SHAPE_NAMES), (count,), generator=random),
        post=post,
        by_x=torch.stack((between(6, 26), between(38, 58)), 1)[
            torch.arange(count)[:, None], _either_way(count, random)
        ],
        by_radius=between(5, 7, BYSTANDERS),
        by_colour=torch.where(there, _colours_beside(pair, random), -1),
        by_shape=torch.randint(len(SHAPE_NAMES), (count, BYSTANDERS), generator=random),
    )


def _colours_beside(pair: Tensor, random: Generator) -> Tensor:
    """A colour for each bystander [B, BYSTANDERS], of those that go with the clip's pair of colour and ground [B]."""
    picks = torch.rand(len(pair), BYSTANDERS, generator=random).tolist()
    choices = [_BESIDE[index] or [-1] for index in pair.tolist()]
    return torch.tensor([[some[int(p * len(some))] for p in row] for some, row in zip(choices, picks, strict=True)])


def _either_way(count: int, random: Generator) -> Tensor:
    first = torch.randint(BYSTANDERS, (count, 1), generator=random)
    return torch.cat((first, 1 - first), 1)


def allowed(scenes: Scenes) -> Tensor:
    """Which verbs can be seen in each scene, [B, verbs] bool: a ball's turn cannot, nor hiding behind nothing."""
    can = torch.ones(len(scenes), len(VERBS), dtype=torch.bool)
    can[:, VERB_NAMES.index("spins")] = TURNING[scenes.shape]
    can[:, VERB_NAMES.index("twirls")] = TURNING_TWICE[scenes.shape]
    can[:, VERB_NAMES.index("hides")] = scenes.post
    return can


@frozen(eq=False)
class Track:
    """Where the shape is and what it looks like, [B, T] each."""

    x: Tensor
    y: Tensor
    radius: Tensor
    solid: Tensor
    """1 is opaque."""
    angle: Tensor
    """Radians, positive towards where it goes."""

    def pick(self, rows: Tensor | slice) -> Track:
        return Track(*(getattr(self, a.name)[rows] for a in fields(Track)))


def track(scenes: Scenes, verbs: Tensor, num_frames: int) -> Track:
    """The way of each scene's shape under its verb [B], an index into VERB_NAMES. The ends are the keyframes'."""
    of = {trait: table[verbs] for trait, table in timelines(num_frames).items()}  # [B, T] each

    def along(start: Tensor, end: Tensor) -> Tensor:
        return start[:, None] + (end - start)[:, None] * of["progress"]

    return Track(
        x=along(scenes.x_start, scenes.x_end),
        y=along(scenes.y_start, scenes.y_end) + of["fall_px"],
        radius=scenes.radius[:, None] * (1 + of["growth"]),
        solid=1 - of["fading"],
        angle=2 * math.pi * of["turns"],
    )


_AXIS = torch.arange(SIDE_PX) + 0.5
_COLOURS = torch.tensor(_RGB)
_GROUNDS = torch.tensor(GROUNDS)
_POST_COLOUR = torch.tensor(POST_COLOUR)[:, None, None]


def grounds(scenes: Scenes) -> Tensor:
    """Pixels of the scenes without what moves, [B, 1, 3, H, W]; a post stands before all."""
    floor = (_AXIS > HORIZON_PX).float()[None, None, :, None]
    sky_and_floor = _GROUNDS[scenes.ground][..., None, None]  # [B, 2, 3, 1, 1]
    picture = (sky_and_floor[:, 0] * (1 - floor) + sky_and_floor[:, 1] * floor).expand(-1, -1, -1, SIDE_PX)
    for n in range(BYSTANDERS):
        radius = scenes.by_radius[:, n, None, None]
        dx, dy = _AXIS - scenes.by_x[:, n, None, None], _AXIS[:, None] - (FLOOR_LINE_PX - radius)
        cover = _soft(outside(scenes.by_shape[:, n], dx, dy, radius)) * (scenes.by_colour[:, n, None, None] >= 0)
        picture = picture + cover[:, None] * (_COLOURS[scenes.by_colour[:, n]][..., None, None] - picture)
    return (picture + posts(scenes) * (_POST_COLOUR - picture))[:, None]


def posts(scenes: Scenes) -> Tensor:
    """How much of each pixel a post covers, [B, 1, H, W]."""
    outside_px = torch.maximum((_AXIS - SIDE_PX / 2).abs() - POST_HALF_PX, POST_TOP_PX - _AXIS[:, None])
    return _soft(outside_px) * scenes.post[:, None, None, None]


def colours(scenes: Scenes) -> Tensor:
    """Of what moves, [B, 1, 3, 1, 1]."""
    return _COLOURS[scenes.colour][:, None, :, None, None]


def covering(scenes: Scenes, track: Track) -> Tensor:
    """How much of each pixel is seen of what moves, [B, T, 1, H, W]; edges are a pixel soft."""
    x, y, radius, solid, angle = (
        v[..., None, None] for v in (track.x, track.y, track.radius, track.solid, track.angle)
    )
    right, down = (_AXIS - x) * scenes.facing[:, None, None, None], _AXIS[:, None] - y
    dx = angle.cos() * right + angle.sin() * down
    dy = angle.cos() * down - angle.sin() * right
    cover = _soft(outside(scenes.shape, dx, dy, radius)) * solid
    return (cover * (1 - posts(scenes)))[:, :, None]


def _soft(outside_px: Tensor) -> Tensor:
    return (0.5 - outside_px).clamp(0, 1)


def render(scenes: Scenes, track: Track) -> Tensor:
    """Pixels [B, T, 3, H, W], 0 to 1."""
    ground = grounds(scenes)
    return ground + covering(scenes, track) * (colours(scenes) - ground)


@frozen(eq=False)
class Clips:
    """A batch of the world."""

    scenes: Scenes
    verbs: Tensor
    """[B], indices into VERB_NAMES."""
    track: Track
    pixels: Tensor
    """[B, T, 3, H, W], 0 to 1."""

    def pick(self, rows: Tensor | slice) -> Clips:
        return Clips(self.scenes.pick(rows), self.verbs[rows], self.track.pick(rows), self.pixels[rows])


def clips(count: int, num_frames: int, random: Generator) -> Clips:
    """Random scenes, each with a random verb that can be seen in it."""
    drawn = scenes(count, random)
    verbs = torch.multinomial(allowed(drawn).float(), 1, generator=random)[:, 0]
    return of_verbs(drawn, verbs, num_frames)


def all_verbs(count: int, num_frames: int, random: Generator) -> Clips:
    """`count` scenes, each under every verb that can be seen in it: the same keyframes again and again."""
    drawn = scenes(count, random)
    rows, verbs = allowed(drawn).nonzero(as_tuple=True)
    return of_verbs(drawn.pick(rows), verbs, num_frames)


def of_verbs(scenes: Scenes, verbs: Tensor, num_frames: int) -> Clips:
    way = track(scenes, verbs, num_frames)
    return Clips(scenes, verbs, way, render(scenes, way))


def with_others(clips: Clips) -> Clips:
    """The same scenes under the verb that an open sentence would allow as well, see `verbs.OTHERS`."""
    return of_verbs(clips.scenes, OTHERS[clips.verbs], clips.pixels.shape[1])


def subject(scenes: Scenes, row: int) -> str:
    return f"a {list(COLOURS)[int(scenes.colour[row])]} {SHAPE_NAMES[int(scenes.shape[row])]}"


def caption(scenes: Scenes, row: int, verb: str, phrase: int = 0) -> str:
    """What a person would write: "a red ball jumps over"."""
    return f"{subject(scenes, row)} {VERBS[verb].phrases[phrase]}"


OPEN_SHARE = 0.4
"""Of the clips whose verb has an open sentence, those that are captioned by one."""


def captions(clips: Clips, random: Generator) -> list[str]:
    """A sentence for each clip; one in three leaves the colour out, one in six says only it, some are open."""
    picks = torch.randint(6, (len(clips.verbs), 2), generator=random).tolist()
    opened = torch.rand(len(clips.verbs), generator=random) < OPEN_SHARE
    return [
        _sentence(clips.scenes, row, VERB_NAMES[verb], bool(opened[row]), *picks[row])
        for row, verb in enumerate(clips.verbs.tolist())
    ]


def _sentence(scenes: Scenes, row: int, verb: str, opened: bool, phrase: int, form: int) -> str:
    phrases = (opened and open_phrases(verb)) or VERBS[verb].phrases
    subjects = (subject(scenes, row), f"the {SHAPE_NAMES[int(scenes.shape[row])]}", "it")
    return f"{subjects[(0, 0, 0, 1, 1, 2)[form]]} {phrases[phrase % len(phrases)]}"


def is_open(sentence: str) -> bool:
    """Whether it leaves something open."""
    return sentence.endswith(tuple(OPEN))


@cache
def every_caption() -> tuple[str, ...]:
    """Each sentence that the world can say, for a vocabulary and a table of embeddings."""
    subjects = [f"a {colour} {shape}" for colour in COLOURS for shape in SHAPE_NAMES]
    subjects += [f"the {shape}" for shape in SHAPE_NAMES] + ["it"]
    said = [phrase for verb in VERBS.values() for phrase in verb.phrases] + list(OPEN)
    return tuple(f"{who} {phrase}" for who in subjects for phrase in said)


@cache
def caption_rows() -> Mapping[str, int]:
    """Where each sentence stands in `every_caption()`."""
    return {sentence: row for row, sentence in enumerate(every_caption())}
