"""Keyframes and prompts, turned into what the model is told.

Strategies, alone or joined by a plus:

- `anchor`: each keyframe's clean latent goes into the KV cache at its true position before anything is made, the future
  ones too, so that every block sees where the clip is going. A block that contains a keyframe gets it as it is.
- `chunk`: the VACE branch sees the block that is being made, with those of its frames that are given.
- `lookahead`: the VACE branch also sees the clip beyond the block, as noise where nothing is made yet.
- `joint`: the whole clip is one block; with VACE this is the bidirectional model that few-step graphs run today.

A keyframe is held to the end of its latent: a latent is four frames, and half a latent cannot be given.
"""

from __future__ import annotations

from collections.abc import Collection, Generator, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from attrs import frozen
from torch import Tensor

from ..model.tae import Tae
from ..model.vace import fold_mask, vace_context
from ..model.vae import StreamState, WanVae
from .base import Keyframe, Step
from .geometry import PIXELS_PER_LATENT, Geometry, frames_of, latent_from, latent_of, plan
from .guide import AT_EASE, AT_REST, Context, Focus, Guide, Pull
from .presets import TRAINED_LATENTS, Preset

if TYPE_CHECKING:
    from .base import Picture

STAGE = "keyframes"
NOTHING: Mapping[int, Keyframe] = {}


@frozen
class Strategy:
    """How keyframes reach the model."""

    anchor: bool = False
    vace: bool = False
    whole: bool = False
    """One block for the clip."""
    lookahead: bool = False

    @classmethod
    def parse(cls, name: str, has_vace: bool) -> Strategy:
        """The strategy of a name as in presets. Without a VACE branch, what would use it falls away."""
        parts = name.split("+")
        assert set(parts) <= {"anchor", "chunk", "lookahead", "joint"}, name
        return cls(
            anchor="anchor" in parts,
            vace=has_vace and parts != ["anchor"],
            whole="joint" in parts,
            lookahead="lookahead" in parts,
        )


def plan_clip(
    width: int,
    height: int,
    num_frames: int,
    keyframes: Sequence[Keyframe],
    preset: Preset,
    strategy: Strategy,
    first: int = 0,
) -> Geometry:
    """The blocks of a request, the first that is made of `first` latents, if that is not 0. A first frame that is
    anchored is a block by itself, as in image-to-video rollouts; the latents of more first frames follow in blocks of
    the usual length, as when a clip is extended.
    """
    lead = given_lead(keyframes) if strategy.anchor and not strategy.whole else 0
    lead = min(lead, latent_of(num_frames - 1))  # something is left to make
    given = [1] * min(lead, 1) + [min(preset.per_block, lead - i) for i in range(1, lead, preset.per_block)]
    if strategy.whole:
        return plan(width, height, num_frames, None, given)
    return plan(width, height, num_frames, preset.per_block, given, first)


class GreyClip:
    """What the VAE makes of nothing but grey: the same for all requests of a size. The longest so far is kept.

    The VAE is causal, so a shorter clip is the beginning of a longer one. It is encoded in one go: between two calls
    the encoder's state would be a gigabyte that waits.
    """

    def __init__(self, vae: WanVae | Tae):
        self._vae = vae
        self._size = (0, 0)
        self._latents: list[Tensor] = []

    def latents(self, geometry: Geometry, device: torch.device | str) -> Generator[Step, None, Tensor]:
        """[B, F, C, H, W] for all latents of the clip."""
        size = (geometry.height, geometry.width)
        if size != self._size or len(self._latents) < geometry.latents:
            latents, state = [], self._vae.new_encoder_state()
            for position in range(geometry.latents):
                grey = torch.zeros(1, len(frames_of(position)), 3, *size, device=device)
                latents.append(self._vae.encode(grey, state).float())
                yield Step(STAGE, position + 1, geometry.latents)
            self._size, self._latents = size, latents
        return torch.cat(self._latents[: geometry.latents], dim=1)


@frozen(eq=False)
class Still:
    """What keyframes make of one latent, encoded after a first frame of its own so that it is a latent of four frames.

    `latents` [B, F, C, H, W] are all of the stretch that it ends, one for the first latent of a clip; the last counts.
    """

    at: int
    """Position of the latent."""
    latents: Tensor
    keyframes: tuple[Keyframe, ...]

    @property
    def latent(self) -> Tensor:
        return self.latents[:, -1:]

    def is_whole(self, num_frames: int) -> bool:
        """Whether each of its frames in the clip is a keyframe, so that none is left to move."""
        return len(self.keyframes) == sum(frame < num_frames for frame in frames_of(self.at))

    def errors(self, pixels: Tensor) -> dict[int, Tensor]:
        """What the way through the VAE and back took from each keyframe, [3, H, W] by position.

        `pixels` [B, T, 3, H, W] are what a decoder made of `latents`.
        """
        frames = frames_of(self.at)
        of_latent = pixels[0, -len(frames) :].float()
        return {k.at: to_pixels(k.image, pixels.device)[0, 0] - of_latent[k.at - frames[0]] for k in self.keyframes}


def encode_stills(
    vae: WanVae | Tae,
    keyframes: Sequence[Keyframe],
    device: torch.device | str,
    around: Mapping[int, Keyframe] = NOTHING,
) -> Generator[Step, None, list[Still]]:
    """A Still for every latent that holds a keyframe, in order of time.

    Frames that are given one after the other move: they are encoded as the stretch that they are, each latent after
    those before it. A picture that stands alone is encoded after a copy of itself, and as four of them, but for frames
    that are known `around` it.
    """
    shown = {**shown_at(keyframes, fill_latents=True), **around}
    given = {k.at for k in keyframes}
    of = len({latent_of(at) for at in given})
    stills: list[Still] = []
    for stretch in _stretches(given):
        first = frames_of(stretch[0])[0]
        lead_in = [first - 1 if first - 1 in given or first - 1 in around else first] if first else []
        frames = [*lead_in, *(frame for position in stretch for frame in frames_of(position))]
        latents = vae.encode(torch.cat([to_pixels(shown[frame].image, device) for frame in frames], dim=1)).float()
        for i, position in enumerate(stretch):
            held = tuple(k for k in keyframes if latent_of(k.at) == position)
            stills.append(Still(position, latents[:, : len(lead_in) + i + 1], held))
            yield Step(STAGE, len(stills), of)
    return stills


def _stretches(given: Collection[int]) -> list[list[int]]:
    """Latents that hold given frames; those between which frames follow each other are one stretch."""
    stretches: list[list[int]] = []
    for position in sorted({latent_of(at) for at in given}):
        first = frames_of(position)[0]
        if stretches and first in given and first - 1 in given:
            stretches[-1].append(position)
        else:
            stretches.append([position])
    return stretches


def given_lead(keyframes: Sequence[Keyframe]) -> int:
    """Latents at the beginning of a clip that are given as a whole, from the first frame on."""
    given = {k.at for k in keyframes}
    lead = 0
    while given.issuperset(frames_of(lead)):
        lead += 1
    return lead


class ClipContext:
    """The VACE context of a clip that is grey where nothing is given. A `rollout.Context`.

    The VAE is causal: what comes first is encoded first, and no more than was asked for. A long clip would otherwise
    keep its first frames waiting for what the model is told about its last ones.
    """

    def __init__(
        self,
        vae: WanVae | Tae,
        grey: GreyClip,
        keyframes: Sequence[Keyframe],
        geometry: Geometry,
        by_block: bool,
        device: torch.device | str,
    ):
        """`by_block` where the branch is to see single blocks: a keyframe is then shown in all frames of its latent,
        also those before it, and the mask names that latent (as daydream's scope does). Where the branch sees a clip,
        the mask is what VACE was trained with, which mostly misses single frames.
        """
        self._vae, self._grey, self._geometry, self._device = vae, grey, geometry, device
        self._shown = shown_at(keyframes, fill_latents=by_block)
        self._mask = (_mask_of_latents if by_block else _mask_of_frames)(self._shown, geometry.latents, device)
        self._inactive: list[Tensor] = []
        self._state: StreamState | None = vae.new_encoder_state()
        """None once all is encoded: it is large."""

    def __call__(self, span: range) -> Generator[Step, None, Tensor]:
        """[B, F, 96, H, W] of the latents in `span`. May be given up after any Step, and called again."""
        while len(self._inactive) < span.stop:
            self._inactive.append(self._encode(len(self._inactive)))
            yield Step(STAGE, len(self._inactive), span.stop)
        if span.stop == self._geometry.latents:
            self._state = None
        reactive = yield from self._grey.latents(self._geometry, self._device)  # what is to change is grey throughout
        there = slice(span.start, span.stop)
        return vace_context(torch.cat(self._inactive[there], dim=1), reactive[:, there], self._mask[:, there])

    def _encode(self, position: int) -> Tensor:
        """The next latent, which is at `position`: what is kept of its frames."""
        nothing = torch.zeros(1, 1, 3, self._geometry.height, self._geometry.width, device=self._device)
        frames = (self._shown.get(frame) for frame in frames_of(position))
        pixels = torch.cat([to_pixels(k.image, self._device) if k else nothing for k in frames], dim=1)
        return self._vae.encode(pixels, self._state).float()


def _mask_of_latents(shown: Collection[int], latents: int, device: torch.device | str) -> Tensor:
    """The folded mask [B, F, 64, 1, 1] that is 0 for the latents of the frames that are shown."""
    mask = torch.ones(1, latents, PIXELS_PER_LATENT**2, 1, 1, device=device)
    mask[:, sorted({latent_of(frame) for frame in shown})] = 0
    return mask


def _mask_of_frames(shown: Collection[int], latents: int, device: torch.device | str) -> Tensor:
    """The folded mask [B, F, 64, 1, 1] of a clip, each latent sampling one frame of it."""
    num_frames = frames_of(latents - 1).stop
    mask = torch.ones(1, num_frames, PIXELS_PER_LATENT, PIXELS_PER_LATENT, device=device)
    mask[:, [frame for frame in shown if frame < num_frames]] = 0  # a picture is given as a whole: one cell says all
    return fold_mask(mask, latents)


def prompts_by_latent(prompt: str, later: Sequence[tuple[int, str]]) -> dict[int, str]:
    """The prompts of a clip by the latent from which on they hold, 0 first, in order.

    Of several from one latent on the last counts; one that says what holds already is none.
    """
    texts = {0: prompt}
    for frame, text in later:
        texts[latent_from(frame)] = text
    before = [None, *texts.values()]
    return {latent: text for (latent, text), last in zip(texts.items(), before, strict=False) if text != last}


@frozen
class Dials:
    """How strongly the keyframes speak."""

    vace_strength: float = 1.0
    release: int = 0
    pull: Pull = AT_REST
    focus: Focus = AT_EASE


PLAIN = Dials()


def guide(
    strategy: Strategy, geometry: Geometry, stills: Sequence[Still], context: Context | None, dials: Dials = PLAIN
) -> Guide:
    """What the rollout needs to know of a strategy."""
    return Guide(
        known={still.at: still.latent for still in stills} if strategy.anchor else {},
        context=context,
        told=None if strategy.whole else frozenset(still.at for still in stills),
        lookahead=max(0, TRAINED_LATENTS - geometry.longest) if strategy.lookahead else 0,
        strength=dials.vace_strength,
        stills=frozenset(still.at for still in stills if not still.is_whole(geometry.num_frames)),
        release=dials.release,
        pull=dials.pull,
        focus=dials.focus if strategy.whole or strategy.lookahead else AT_EASE,
        keyframes=frozenset(still.at for still in stills),
    )


def is_encoded_in_parts(strategy: Strategy, geometry: Geometry, keyframes: Sequence[Keyframe]) -> bool:
    """Whether a block needs some of the VACE context, and a later one more of it."""
    if strategy.whole or strategy.lookahead:
        return strategy.lookahead and geometry.latents > TRAINED_LATENTS
    told = {latent_of(k.at) for k in keyframes}
    return any(not told.isdisjoint(block.latents) for block in geometry.made[:-1])


def shown_at(keyframes: Sequence[Keyframe], fill_latents: bool) -> Mapping[int, Keyframe]:
    """Which keyframe each frame shows: from its place to the end of its latent, or in all of the latent."""
    shown: dict[int, Keyframe] = {}
    for keyframe in keyframes:  # in order of time, so later ones take over
        for frame in frames_of(latent_of(keyframe.at)):
            if frame >= keyframe.at or (fill_latents and frame not in shown):
                shown[frame] = keyframe
    return shown


def to_pixels(picture: Picture, device: torch.device | str) -> Tensor:
    """[H, W, 3] uint8 to [1, 1, 3, H, W] in -1 to 1."""
    return torch.tensor(picture, device=device).movedim(-1, 0)[None, None].float() / 127.5 - 1
