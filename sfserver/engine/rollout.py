"""The autoregressive rollout: blocks of latents, denoised one after the other against what was made before.

    place the keyframes in the cache
    for each block:
        remember the block before it: one clean pass, so that the cache holds what it became and not its noise
        denoise: a few passes, each an estimate of the clean latents, made a little less noisy than the last
        decode it, hand it over, forget its pixels

One block that spans the clip is the bidirectional case, and needs no cache. Which keyframe strategy is used shows in
the arguments alone: known latents (`anchor`), a VACE context (`joint`, `chunk`, `lookahead`), or both.

A rollout may be closed after any pass and run again: it goes on with the block that was broken off as if nothing of it
had been started.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence, Set
from functools import partial
from typing import Literal, NamedTuple

import torch
from attrs import field, frozen
from sfwire.errors import ErrorCode, RequestError
from torch import Tensor

from ..model.attention import kernel_preference
from ..model.cache import CacheShape, KvCache
from ..model.config import DitConfig
from ..model.dit import EAGER, Dit, How, TextKv
from ..model.rope import RopeTable
from ..model.vace import Vace
from .base import Step
from .geometry import Block, Geometry
from .noise import Noise, Schedule, mix

PURE_NOISE_T = 1000.0
CLEAN_T = 0.0


@frozen(eq=False)
class Networks:
    """What computes. `vace` is None where the model has no such branch."""

    dit: Dit
    vace: Vace | None = None
    how: How = EAGER


@frozen(eq=False)
class Prompt:
    """What one prompt is to all layers. For guidance in two passes there are two of them."""

    text: list[TextKv]
    vace_text: list[TextKv] = field(factory=list)


@frozen(eq=False)
class Sampling:
    """How blocks are denoised and remembered."""

    schedule: Schedule
    first_schedule: Schedule | None = None
    """For the first block that is made, which has the least to go by; None is `schedule`."""
    context_t: float = CLEAN_T
    """The timestep that the clean pass is told. The latents are clean whatever it is."""
    guidance: float = 1.0
    """Above 1, a second pass with the negative prompt is stepped away from."""


Context = Callable[[range], Generator[Step, None, Tensor]]
"""The VACE context [B, F, 96, H, W] of a run of latents, encoded when it is first needed: a Step after each latent."""


def encoded(context: Tensor) -> Context:
    """The Context of a clip that is encoded as a whole already, [B, F, 96, H, W]."""

    def look_up(span: range) -> Generator[Step, None, Tensor]:
        yield from ()
        return context[:, span.start : span.stop]

    return look_up


class View(NamedTuple):
    """What the VACE branch sees in all passes over one block."""

    context: Tensor
    """[B, F, 96, H, W] of the block and of what comes after it, as far as look-ahead goes."""
    future: Tensor
    """Latents after the block [B, F, C, H, W]: as yet noise."""


@frozen(eq=False)
class Guide:
    """What the model is told about the keyframes. All of it may be empty."""

    known: Mapping[int, Tensor] = field(factory=dict[int, Tensor])
    """Clean latents [B, 1, C, H, W] by position. They go into the cache first, and into the clip as they are."""
    context: Context | None = None
    told: Set[int] | None = None
    """Latents that the context says something about: passes that see none of them go without VACE. None is all."""
    lookahead: int = 0
    """Latents that the VACE branch sees beyond the present block; 0 keeps it to the block."""
    strength: float = 1.0
    """Weight of VACE's hints."""


@frozen
class Memory:
    """What the cache keeps, in latents."""

    window: int
    sink: int = 0
    relative: bool = False
    """Keys are rotated when read, by their place in the window."""


Graph = Literal["none", "exit", "exit+memory"]
"""Which passes keep what backward needs; in use none does. In training, the last pass over each block (Self Forcing),
or those that write what later blocks look back at as well (Self Gradient Forcing). Latents that are fed back never do:
gradient reaches a block through keys and values alone."""


@frozen(eq=False)
class Made:
    """One block is done. Latents [B, F, C, H, W]; pixels [B, T, 3, H, W] in -1 to 1 where the rollout decodes."""

    block: Block
    latents: Tensor
    pixels: Tensor | None


class Rollout:
    """Everything that lies between two blocks of one clip. `run` is the loop; the rest is in the order of its calls."""

    def __init__(
        self,
        networks: Networks,
        geometry: Geometry,
        sampling: Sampling,
        prompts: Sequence[Prompt],
        noise: Noise,
        guide: Guide | None = None,
        memory: Memory | None = None,
        decode: Callable[[Tensor], Tensor] | None = None,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        graph: Graph = "none",
        new_cache: Callable[..., KvCache] = KvCache,
        batch: int = 1,
    ):
        """`prompts` are the prompt and, for guidance in two passes, the negative one. Without `memory` there is no
        cache, and the clip must be one block. `decode` takes latents in order, [B, F, C, H, W], and keeps its own
        state. `dtype` is that of the cache. Training rolls out a `batch` of clips at once, with a `graph` and a cache
        that can keep one.
        """
        self._networks, self._geometry, self._sampling, self._graph = networks, geometry, sampling, graph
        self._noise, self._guide, self._decode, self._device = noise, guide or Guide(), decode, device
        self._unplaced = _placements(geometry, self._guide)
        self._unremembered: tuple[Block, Tensor] | None = None
        self._beginnings: dict[int, Tensor] = {}
        self._next = 0
        self._passes = 0
        self.total_passes = self._count_passes(cached=memory is not None)
        assert memory or (len(geometry.blocks) == 1 and not self._unplaced), (
            "only a single block can do without a cache"
        )

        config = networks.dit.config
        self._table = RopeTable(config.head_dim, geometry.latents, geometry.rows, geometry.columns, device)
        shape = memory and cache_shape(config, geometry, memory, sum(pin for _, pin in self._unplaced), batch)
        self._branches = [
            (prompt, new_cache(shape, self._table, memory.relative, device, dtype) if memory and shape else None)
            for prompt in prompts
        ]

    def run(self) -> Generator[Step | Made, None, None]:
        """A Step after each pass and a Made after each block, to the end of the clip.

        Raises RequestError (not_finite) where the networks produce NaN or infinity.
        """
        yield from self._place_keyframes()
        for block in self._geometry.blocks[self._next :]:
            yield from self.remember()
            latents = yield from self._denoise(block)
            self._next += 1
            self._beginnings.pop(block.index, None)
            self._unremembered = None if block.given else (block, latents)
            yield Made(block, latents, self._pixels(block, latents))

    def _place_keyframes(self) -> Generator[Step, None, None]:
        """Known latents enter the cache one after the other: each sees those before it, and every block sees all."""
        while self._unplaced:
            block, pin = self._unplaced[0]
            self._seat(block, pin=pin)
            self._flow(self._known(block), CLEAN_T, block, graph=self._graph == "exit+memory")
            del self._unplaced[0]
            yield self._step("keyframes")

    def remember(self) -> Generator[Step, None, None]:
        """The clean pass over the block that was made last, if it is still due.

        `run` leaves it out after the last block: who wants to look into the cache calls it.
        """
        if self._unremembered and self._branches[0][1]:
            block, latents = self._unremembered
            self._seat(block, final=True)
            self._flow(latents.detach(), self._sampling.context_t, block, graph=self._graph == "exit+memory")
            self._unremembered = None
            yield self._step("remembering")

    def _denoise(self, block: Block) -> Generator[Step, None, Tensor]:
        """From noise to the clean latents [B, F, C, H, W] of one block."""
        if self._is_known(block):
            return self._known(block)
        schedule = self._schedule(block)
        noise = self._beginning(block)
        view = yield from self._view(block)
        self._seat(block)
        x = noise
        try:
            for i, t in enumerate(schedule.timesteps):
                x = self._with_known(x, block, noise, schedule.sigmas[i])
                is_exit = i + 1 == len(schedule)
                flow = self._flow(x, t, block, view, graph=is_exit and self._graph != "none")
                x = schedule.advance(i, x, flow, partial(self._noise, block.index, i + 1))
                yield self._step("denoising")
        except GeneratorExit:
            self._truncate(block.start)  # what the cache holds of this block is noise
            raise
        return self._with_known(x, block, noise, sigma=0.0)

    def _flow(self, x: Tensor, t: float, block: Block, view: View | None = None, graph: bool = False) -> Tensor:
        """One pass under each prompt: the flow of the block's latents, after guidance. VACE speaks of a view alone."""
        with torch.set_grad_enabled(graph):
            flows = [self._pass(x, t, block, view, prompt, cache) for prompt, cache in self._branches]
        if len(flows) == 1:
            return flows[0]
        towards, away = flows
        return away + self._sampling.guidance * (towards - away)

    def _pass(
        self, x: Tensor, t: float, block: Block, view: View | None, prompt: Prompt, cache: KvCache | None
    ) -> Tensor:
        dit, how = self._networks.dit, self._networks.how
        rotation = cache.rotation if cache else self._table.at(block.start, block.count)
        with kernel_preference():
            hints = self._hints(x, t, block, view, prompt) if view else ()
            return dit(x, self._timesteps(t), prompt.text, rotation, cache, hints, how)

    def _hints(self, x: Tensor, t: float, block: Block, view: View, prompt: Prompt) -> Sequence[Tensor]:
        """What the VACE branch has to say about the block."""
        dit, vace, guide = self._networks.dit, self._networks.vace, self._guide
        assert vace
        tokens = dit.embed_latents(torch.cat((x, view.future), dim=1))
        rotation = self._table.at(block.start if guide.lookahead else 0, view.context.shape[1])
        if guide.lookahead:
            timesteps = self._timesteps(t, block.count, view.future.shape[1])
            how = How(self._networks.how.attend)  # the view shrinks towards the end: compiled, it would be each time
        else:
            timesteps, how = self._timesteps(t), self._networks.how  # by itself, a block is a clip of its own
        hints = vace(tokens, dit.embed_time(timesteps).blocks, view.context, prompt.vace_text, rotation, how)
        own = block.count * self._geometry.tokens_per_latent
        return [guide.strength * hint[:, :own] for hint in hints]

    def _timesteps(self, t: float, count: int = 1, future: int = 0) -> Tensor:
        """[B, F]: one timestep for all latents, or each its own where `future` ones are still pure noise."""
        timesteps = torch.full((1, count + future), t, device=self._device)
        timesteps[:, count:] = PURE_NOISE_T
        return timesteps

    def _schedule(self, block: Block) -> Schedule:
        first = self._sampling.first_schedule
        return first if first and block.index == 0 else self._sampling.schedule

    def _beginning(self, block: Block) -> Tensor:
        """The noise that a block begins as. Kept until then, for look-ahead shows it to the blocks before."""
        if block.index not in self._beginnings:
            self._beginnings[block.index] = self._noise(block.index, 0)
        return self._beginnings[block.index]

    def _view(self, block: Block) -> Generator[Step, None, View | None]:
        """What the VACE branch is to see with a block; None where there is no branch, or nothing to tell it."""
        guide, future = self._guide, self._future(block)
        span = range(block.start, block.stop + future.shape[1])
        told = guide.told is None or not guide.told.isdisjoint(span)
        if self._networks.vace is None or guide.context is None or not told:
            return None
        return View((yield from guide.context(span)), future)

    def _future(self, block: Block) -> Tensor:
        """What the latents after the block are as yet, [B, F, C, H, W], as far as look-ahead goes."""
        later = [b for b in self._geometry.made if block.stop <= b.start < block.stop + self._guide.lookahead]
        nothing = torch.empty(self._geometry.latent_shape(0), device=self._device)
        return torch.cat([nothing, *(self._beginning(b) for b in later)], dim=1)[:, : self._guide.lookahead]

    def _is_known(self, block: Block) -> bool:
        """Whether nothing of a block is left to make: what is given, and a keyframe that is a block by itself."""
        return all(position in self._guide.known for position in block.latents)

    def _known(self, block: Block) -> Tensor:
        """Clean latents of a block that is known as a whole."""
        return torch.cat([self._guide.known[position] for position in block.latents], dim=1)

    def _with_known(self, x: Tensor, block: Block, noise: Tensor, sigma: float) -> Tensor:
        """x with the block's known latents put in, as noisy as the rest."""
        known = [position for position in block.latents if position in self._guide.known]
        x = x.clone() if known else x
        for position in known:
            place = slice(position - block.start, position - block.start + 1)
            x[:, place] = mix(self._guide.known[position], noise[:, place], sigma)
        return x

    def _pixels(self, block: Block, latents: Tensor) -> Tensor | None:
        """Decode what is needed of a block. Frames wait for the device anyway, so here is where NaN is looked for."""
        _check_finite(latents, block, "the model")
        if self._decode is None:
            return None
        pixels = self._decode(latents[:, : self._geometry.needed_latents - block.start])
        _check_finite(pixels, block, "the VAE's decoder")
        return pixels

    def _seat(self, block: Block, pin: bool = False, final: bool = False) -> None:
        for _, cache in self._branches:
            if cache:
                cache.seat(block.start, block.count, pin, final)

    def _truncate(self, start: int) -> None:
        for _, cache in self._branches:
            if cache:
                cache.truncate(start)

    def _step(self, stage: str) -> Step:
        self._passes += 1
        return Step(stage, min(self._passes, self.total_passes), self.total_passes)

    def _count_passes(self, cached: bool) -> int:
        denoising = sum(len(self._schedule(block)) for block in self._geometry.made if not self._is_known(block))
        return len(self._unplaced) + denoising + (len(self._geometry.made) - 1 if cached else 0)


def _check_finite(x: Tensor, block: Block, maker: str) -> None:
    if not bool(torch.isfinite(x).all()):
        raise RequestError(
            ErrorCode.NOT_FINITE,
            f"{maker} produced NaN or infinity in latents {block.start} to {block.stop - 1}; "
            "its weights are damaged or do not bear this precision, try precision fp32",
        )


def cache_shape(config: DitConfig, geometry: Geometry, memory: Memory, pinned: int = 0, batch: int = 1) -> CacheShape:
    """The cache of a clip: never more seats than the clip has latents."""
    return CacheShape(
        layers=config.layers,
        heads=config.heads,
        head_dim=config.head_dim,
        tokens_per_latent=geometry.tokens_per_latent,
        window=min(memory.window, geometry.latents),
        sink=memory.sink,
        pinned=pinned,
        batch=batch,
    )


def _placements(geometry: Geometry, guide: Guide) -> list[tuple[Block, bool]]:
    """What goes into the cache before anything is made, in order of time, and whether it is pinned there.

    A given block is the clip's past like any other. Known latents further on are pinned: they are there before their
    turn, and stay.
    """
    given = [block for block in geometry.blocks if block.given]
    past = {position for block in given for position in block.latents}
    ahead = [Block(-1, position, 1) for position in sorted(guide.known) if position not in past]
    return [(block, False) for block in given] + [(block, True) for block in ahead]
