"""Clips of the world as latents, made once and drawn from ever after: encoding a clip costs more than a step on it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from attrs import frozen
from safetensors.torch import load_file, save_file
from torch import Generator, Tensor

from ..model.tae import Tae
from .codec import encode, held
from .loop import step_random
from .verbs import OTHERS
from .world import Clips, caption_rows, captions, clips, covering, is_open, with_others

SHARD_CLIPS = 512
_STILL_FRAMES = 8
"""The second latent of a still this long is a keyframe's latent, as `conditioning.encode_stills` makes it."""


@frozen(eq=False)
class Latents:
    """Encoded clips of one length."""

    clean: Tensor
    """[B, F, C, H, W]: the start keyframe, the latents between, the end keyframe held to the end of its latent."""
    near: Tensor
    """[B, F - 2, H, W] bool: where in the latents between the shape is, or close by, in either clip."""
    sentence: Tensor
    """[B], rows of the table of captions: `world.every_caption()`, or the pool's own."""
    stills: Tensor | None = None
    """[B, F, C, H, W]: what a keyframe in each latent is told as; None where keyframes begin and end clips alone."""
    other: Tensor | None = None
    """[B, F, C, H, W]: the clip that the sentence allows as well, the same one where it leaves nothing open; None where
    no sentence does."""
    first: Tensor | None = None
    """[B] bool: whether `clean` has the one of the two verbs that `verbs.VERBS` names first."""

    def __len__(self) -> int:
        return len(self.clean)

    def pick(self, rows: Tensor) -> Latents:
        stills, other, first = (None if of is None else of[rows] for of in (self.stills, self.other, self.first))
        return Latents(self.clean[rows], self.near[rows], self.sentence[rows], stills, other, first)

    def to(self, device: torch.device) -> Latents:
        """On a device, latents in float32. The table of captions is large and stays where it is; so do its rows."""
        stills, other = (None if of is None else of.to(device).float() for of in (self.stills, self.other))
        return Latents(self.clean.to(device).float(), self.near.to(device), self.sentence, stills, other, self.first)

    def keyframe(self, position: int) -> Tensor:
        """What a keyframe there is told as, [B, 1, C, H, W]."""
        last = self.clean.shape[1] - 1
        latents = self.clean if position in (0, last) or self.stills is None else self.stills
        return latents[:, position : position + 1]


def draw_latents(
    pools: Sequence[Latents], shares: Sequence[float], batch: int, random: Generator, device: torch.device
) -> Latents:
    """A batch of one length. Longer clips come in smaller batches."""
    pool = pools[int(torch.multinomial(torch.tensor(shares), 1, generator=random))]
    count = max(1, round(batch * (pools[0].clean.shape[1] - 2) / (pool.clean.shape[1] - 2)))
    return pool.pick(torch.randint(len(pool), (count,), generator=random)).to(device)


MOST_IN_THE_MIDDLE = 3


def draw_known(latents: Latents, end_share: float, middle_share: float, random: Generator) -> tuple[int, ...]:
    """Positions of the keyframes that a batch is told, in order of time: the start always, the end with its share,
    and with theirs one to three between, where the pool has them.

    Of a batch and not of a clip: what a cache holds is the same for all that are in it.
    """
    last = latents.clean.shape[1] - 1
    with_end = bool(torch.rand((), generator=random) < end_share)
    middle: list[int] = []
    if latents.stills is not None and last > 1 and bool(torch.rand((), generator=random) < middle_share):
        most = min(MOST_IN_THE_MIDDLE, last - 2)  # something is left to make
        count = 1 + int(torch.randint(max(1, most), (1,), generator=random)) if most else 0
        middle = sorted((1 + torch.randperm(last - 1, generator=random)[:count]).tolist())
    return (0, *middle, *([last] if with_end else []))


@torch.no_grad()
def encode_clips(tae: Tae, batch: Clips, sentences: Sequence[str]) -> Latents:
    """Latents of clips whose last frame is the first of its latent, as in `world.CLIP_FRAMES`."""
    clean, near = _encode_with_near(tae, batch)
    other, either = clean.clone(), near.clone()
    opened = torch.tensor([is_open(sentence) for sentence in sentences])
    if opened.any():
        other[opened], near_other = _encode_with_near(tae, with_others(batch.pick(opened)))
        either[opened] |= near_other
    rows = caption_rows()
    sentence = torch.tensor([rows[sentence] for sentence in sentences])
    return Latents(clean, either, sentence, other=other, first=batch.verbs <= OTHERS[batch.verbs])


def _encode_with_near(tae: Tae, batch: Clips) -> tuple[Tensor, Tensor]:
    assert batch.pixels.shape[1] % 4 == 2, batch.pixels.shape
    with torch.autocast("cpu", torch.bfloat16):
        clean = encode(tae, batch.pixels[:, :-1]).float()
        still = encode_still(tae, batch.pixels[:, -1]).float()
    cover = covering(batch.scenes, batch.track)[:, 1:-1]  # [B, 4 (F - 2), 1, H, W]
    of_latent = F.max_pool2d(cover.flatten(0, 2), 8).unflatten(0, (len(clean), -1, 4)).amax(2)  # four frames at once
    near = F.max_pool2d(of_latent.flatten(0, 1)[:, None], 3, 1, 1)[:, 0].unflatten(0, (len(clean), -1)) > 0.02
    return torch.cat((clean, still), 1), near


@torch.no_grad()
def encode_still(tae: Tae, picture: Tensor) -> Tensor:
    """[B, 3, H, W] in 0 to 1 to what an end keyframe is told as, [B, 1, C, H/8, W/8]."""
    return encode(tae, held(picture[:, None].expand(-1, _STILL_FRAMES - 3, -1, -1, -1)))[:, -1:]


def write_shards(tae: Tae, folder: Path, num_frames: int, count: int, seed: int) -> Iterator[Path]:
    """`count` shards of SHARD_CLIPS clips each, one after the other; those that are there already are kept."""
    folder.mkdir(parents=True, exist_ok=True)
    for shard in range(count):
        path = folder / f"{num_frames:02}-{shard:03}.safetensors"
        if not path.exists():
            random = step_random(seed, 1000 * num_frames + shard)
            parts = [_encode_some(tae, num_frames, random) for _ in range(SHARD_CLIPS // _AT_ONCE)]
            tensors = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
            save_file(tensors, path.with_suffix(".part"))
            os.replace(path.with_suffix(".part"), path)
        yield path


_AT_ONCE = 32


def _encode_some(tae: Tae, num_frames: int, random: Generator) -> Mapping[str, Tensor]:
    batch = clips(_AT_ONCE, num_frames, random)
    encoded = encode_clips(tae, batch, captions(batch, random))
    assert encoded.other is not None
    assert encoded.first is not None
    halves = {"clean": encoded.clean.to(torch.bfloat16), "other": encoded.other.to(torch.bfloat16)}
    return {**halves, "near": encoded.near, "sentence": encoded.sentence, "first": encoded.first}


def read_shards(folder: Path, num_frames: int) -> Latents:
    """All clips of a length as one."""
    shards = [load_file(path) for path in sorted(folder.glob(f"{num_frames:02}-*.safetensors"))]
    whole = {name: torch.cat([shard[name] for shard in shards]) for name in shards[0]}
    return Latents(**whole)
