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

from collections.abc import Generator, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from attrs import frozen
from torch import Tensor

from ..model.vace import fold_mask, vace_context
from ..model.vae import WanVae
from .base import Keyframe, Step
from .geometry import PIXELS_PER_LATENT, Geometry, frames_of, latent_of, plan
from .presets import TRAINED_LATENTS, Preset
from .rollout import Context, Guide

if TYPE_CHECKING:
    from .base import Picture

STAGE = "keyframes"


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
    width: int, height: int, num_frames: int, keyframes: Sequence[Keyframe], preset: Preset, strategy: Strategy
) -> Geometry:
    """The blocks of a request. A first frame that is anchored is a block by itself, as in image-to-video rollouts."""
    given = [1] if strategy.anchor and not strategy.whole and any(k.at == 0 for k in keyframes) else []
    return plan(width, height, num_frames, None if strategy.whole else preset.per_block, given)


class GreyClip:
    """What the VAE makes of nothing but grey: the same for all requests of a size. What was encoded is kept.

    The VAE is causal, so a shorter clip is the beginning of a longer one, and a longer one goes on where it ended.
    """

    def __init__(self, vae: WanVae):
        self._vae = vae
        self._size = (0, 0)
        self._latents: list[Tensor] = []
        self._state = vae.new_encoder_state()

    def latents(self, size: tuple[int, int], stop: int, device: torch.device | str) -> Generator[Step, None, Tensor]:
        """[B, F, C, H, W] of the first `stop` latents; `size` is height and width in pixels."""
        if size != self._size:
            self._size, self._latents, self._state = size, [], self._vae.new_encoder_state()
        while len(self._latents) < stop:
            position = len(self._latents)
            grey = torch.zeros(1, len(frames_of(position)), 3, *size, device=device)
            self._latents.append(self._vae.encode(grey, self._state).float())
            yield Step(STAGE, position + 1, stop)
        return torch.cat(self._latents[:stop], dim=1)


@frozen(eq=False)
class Still:
    """What keyframes make of one latent, encoded after a first frame of its own so that it is a latent of four frames.

    `latents` are [B, 1, C, H, W] for the first latent of a clip, which is one frame anyway, and [B, 2, C, H, W] for
    others; the last one counts.
    """

    at: int
    """Position of the latent."""
    latents: Tensor
    keyframes: tuple[Keyframe, ...]

    @property
    def latent(self) -> Tensor:
        return self.latents[:, -1:]

    def errors(self, pixels: Tensor) -> dict[int, Tensor]:
        """What the way through the VAE and back took from each keyframe, [3, H, W] by position.

        `pixels` [B, T, 3, H, W] are what a decoder made of `latents`.
        """
        frames = frames_of(self.at)
        of_latent = pixels[0, -len(frames) :].float()
        return {k.at: to_pixels(k.image, pixels.device)[0, 0] - of_latent[k.at - frames[0]] for k in self.keyframes}


def encode_stills(
    vae: WanVae, keyframes: Sequence[Keyframe], device: torch.device | str
) -> Generator[Step, None, list[Still]]:
    """A Still for every latent that holds a keyframe, in order of time."""
    shown = shown_at(keyframes, fill_latents=True)
    stills: list[Still] = []
    positions = sorted({latent_of(k.at) for k in keyframes})
    for position in positions:
        pictures = [shown[frame].image for frame in frames_of(position)]
        lead_in = pictures[:1] if position else []
        pixels = torch.cat([to_pixels(picture, device) for picture in (*lead_in, *pictures)], dim=1)
        held = tuple(k for k in keyframes if latent_of(k.at) == position)
        stills.append(Still(position, vae.encode(pixels).float(), held))
        yield Step(STAGE, len(stills), len(positions))
    return stills


class ClipContext:
    """The VACE context of a clip that is grey where nothing is given. A `rollout.Context`.

    The VAE is causal: what comes first is encoded first, and no more than was asked for. A long clip would otherwise
    keep its first frames waiting for what the model is told about its last ones.
    """

    def __init__(
        self,
        vae: WanVae,
        grey: GreyClip,
        keyframes: Sequence[Keyframe],
        geometry: Geometry,
        fill_latents: bool,
        device: torch.device | str,
    ):
        """`fill_latents` shows a keyframe in all frames of its latent, also those before it: then the mask, which
        samples one frame of each, can see it (as daydream's scope does for its blocks).
        """
        self._vae, self._grey, self._device = vae, grey, device
        self._size = (geometry.height, geometry.width)
        self._shown = shown_at(keyframes, fill_latents)
        self._inactive: list[Tensor] = []
        self._state = vae.new_encoder_state()
        num_frames = frames_of(geometry.latents - 1).stop
        mask = torch.ones(1, num_frames, PIXELS_PER_LATENT, PIXELS_PER_LATENT, device=device)
        mask[:, [f for f in self._shown if f < num_frames]] = 0  # a picture is given as a whole: one cell says all
        self._mask = fold_mask(mask, geometry.latents)

    def __call__(self, span: range) -> Generator[Step, None, Tensor]:
        """[B, F, 96, H, W] of the latents in `span`. May be given up after any Step, and called again."""
        while len(self._inactive) < span.stop:
            self._inactive.append(self._encode(len(self._inactive)))
            yield Step(STAGE, len(self._inactive), span.stop)
        reactive = yield from self._grey.latents(self._size, span.stop, self._device)  # what is to change is grey
        inactive = torch.cat(self._inactive[span.start : span.stop], dim=1)
        return vace_context(inactive, reactive[:, span.start :], self._mask[:, span.start : span.stop])

    def _encode(self, position: int) -> Tensor:
        """The next latent, which is at `position`: what is kept of its frames."""
        nothing = torch.zeros(1, 1, 3, *self._size, device=self._device)
        frames = (self._shown.get(frame) for frame in frames_of(position))
        pixels = torch.cat([to_pixels(k.image, self._device) if k else nothing for k in frames], dim=1)
        return self._vae.encode(pixels, self._state).float()


def guide(
    strategy: Strategy, geometry: Geometry, stills: Sequence[Still], context: Context | None, strength: float
) -> Guide:
    """What the rollout needs to know of a strategy."""
    return Guide(
        known={still.at: still.latent for still in stills} if strategy.anchor else {},
        context=context,
        told=None if strategy.whole else frozenset(still.at for still in stills),
        lookahead=max(0, TRAINED_LATENTS - geometry.blocks[-1].count) if strategy.lookahead else 0,
        strength=strength,
    )


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
