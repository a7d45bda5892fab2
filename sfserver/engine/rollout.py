"""The autoregressive rollout: blocks of latents, denoised one after the other against what was made before.

    place the keyframes in the cache
    for each block:
        remember the block before it: one clean pass, so that the cache holds what it became and not its noise
        take up the prompt that holds from here on
        denoise: a few passes, each an estimate of the clean latents, made a little less noisy than the last
        decode it, hand it over, forget its pixels

One block that spans the clip is the bidirectional case, and needs no cache. Which keyframe strategy is used shows in
the arguments alone: known latents (`anchor`), a VACE context (`joint`, `chunk`, `lookahead`), or both.

A rollout may be closed after any pass and run again: it goes on with the block that was broken off as if nothing of it
had been started.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from functools import partial
from typing import Literal

import torch
from attrs import frozen
from torch import Tensor

from ..model.attention import Group, grouped, kernel_preference
from ..model.cache import CacheShape, KvCache
from ..model.config import DitConfig
from ..model.dit import EAGER, Dit, How
from ..model.graphs import SMALL_TOKENS, Played, Record
from ..model.positions import Policy, Positions
from ..model.rope import RopeTable
from ..model.vace import Vace
from .base import Step
from .geometry import Block, Geometry
from .guide import Guide, View
from .noise import Noise, Schedule, mix
from .script import Prompt, Script, Switch, looked_back_at

PURE_NOISE_T = 1000.0
CLEAN_T = 0.0


@frozen(eq=False)
class Networks:
    """What computes. `vace` is None where the model has no such branch."""

    dit: Dit
    vace: Vace | None = None
    how: How = EAGER
    clean: Dit | None = None
    """Makes the clean passes, where a model has another network for them (Self Gradient Forcing+)."""
    record: Record | None = None
    """Records a small block's passes, so that all but the first two are played (`model.graphs`)."""


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


@frozen
class Memory:
    """What the cache keeps, in latents."""

    window: int
    sink: int = 0
    policy: Policy = "absolute"
    """Where what is held seems to lie."""
    trained: int | None = None
    """Positions that the model knows; see `Positions.trained`."""
    renew: bool = False
    """Under another prompt, what is held of the latest blocks is computed anew (LongLive)."""


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
        switches: Sequence[Switch] = (),
    ):
        """`prompts` are the prompt and, for guidance in two passes, the negative one; `switches` rise. Without `memory`
        there is no cache, and the clip must be one block. `decode` takes latents in order, [B, F, C, H, W], and keeps
        its own state. `dtype` is that of the cache. Training rolls out a `batch` of clips at once, with a `graph` and a
        cache that can keep one.
        """
        self._networks, self._geometry, self._sampling, self._graph = networks, geometry, sampling, graph
        self._noise, self._guide, self._decode, self._device = noise, guide or Guide(), decode, device
        self._script, self._memory = Script(prompts, switches), memory
        self._unplaced = _placements(geometry, self._guide)
        self._unremembered: tuple[Block, Tensor] | None = None
        self._unrenewed: list[Block] = []
        self._past: dict[int, Tensor] = {}
        self._beginnings: dict[int, Tensor] = {}
        self._next = 0
        self._passes = 0
        self._pinned = frozenset(block.start for block, pin in self._unplaced if pin)
        self.total_passes = self._count_passes()
        assert memory or (len(geometry.blocks) == 1 and not self._unplaced), (
            "only a single block can do without a cache"
        )

        head_dim = networks.dit.config.head_dim
        table = partial(RopeTable, head_dim, geometry.latents, geometry.rows, geometry.columns, device)
        seen = self._guide.focus.time_scale
        self._table, self._view_table = table(1.0 if self._guide.lookahead else seen), table(seen)
        self._prompts = prompts
        shape = memory and cache_shape(networks.dit.config, geometry, memory, len(self._pinned), batch)
        positions = memory and Positions(memory.policy, memory.trained, self._guide.pull.reach)
        self._branches = [
            (prompt, new_cache(shape, self._table, positions, device, dtype) if shape else None) for prompt in prompts
        ]

    def run(self) -> Generator[Step | Made, None, None]:
        """A Step after each pass and a Made after each block, to the end of the clip.

        Nothing here waits for the device. Whether what it made is finite is seen where pictures leave (`pipeline`).
        """
        yield from self._place_keyframes()
        for block in self._geometry.blocks[self._next :]:
            yield from self.remember()
            yield from self._take_up_prompts(block)
            latents = yield from self._denoise(block)
            self._next += 1
            self._beginnings.pop(block.index, None)
            if self._memory and self._memory.renew:
                self._past |= dict(zip(block.latents, latents.split(1, dim=1), strict=True))
            self._unremembered = None if block.given else (block, latents)
            yield Made(block, latents, self._pixels(block, latents))

    def _place_keyframes(self) -> Generator[Step, None, None]:
        """Known latents enter the cache one after the other: each sees those before it, and every block sees all."""
        while self._unplaced:
            block, pin = self._unplaced[0]
            self._take_in(self._known(block), CLEAN_T, block, pin)
            del self._unplaced[0]
            yield self._step("keyframes")

    def remember(self) -> Generator[Step, None, None]:
        """The clean pass over the block that was made last, if it is still due.

        `run` leaves it out after the last block: who wants to look into the cache calls it.
        """
        if self._unremembered and self._branches[0][1]:
            block, latents = self._unremembered
            self._take_in(latents.detach(), self._sampling.context_t, block)
            self._unremembered = None
            yield self._step("remembering")

    def _take_up_prompts(self, block: Block) -> Generator[Step, None, None]:
        """Prompts may change over where a block begins; some models want what they look back at seen under the new."""
        prompts = self._script.at(block)
        if prompts is not self._prompts:
            self._prompts = prompts
            self._branches = [(new, cache) for new, (_, cache) in zip(prompts, self._branches, strict=True)]
            self._unrenewed = self._looked_back_at(block)
            if self._unrenewed:
                self._truncate(self._unrenewed[0].start)
        while self._unrenewed:
            past = self._unrenewed[0]
            latents = torch.cat([self._past[position] for position in past.latents], dim=1)
            self._take_in(latents, self._sampling.context_t, past)
            del self._unrenewed[0]
            yield self._step("remembering")

    def _take_in(self, latents: Tensor, t: float, block: Block, pin: bool = False) -> None:
        """A clean pass over latents, for what it leaves in the cache."""
        self._seat(block, pin, final=True)
        self._flow(latents, t, block, clean=True, graph=self._graph == "exit+memory")

    def _denoise(self, block: Block) -> Generator[Step, None, Tensor]:
        """From noise to the clean latents [B, F, C, H, W] of one block."""
        if self._is_known(block):
            return self._known(block)
        schedule = self._schedule(block)
        noise = self._beginning(block)
        view = yield from self._view(block)
        self._seat(block)
        x, advance = noise, schedule.begin()
        flow_of = self._flow_of(block, view)
        try:
            for i, t in enumerate(schedule.timesteps):
                x = self._with_known(x, block, noise, schedule.sigmas[i], passes_left=len(schedule) - i)
                is_exit = i + 1 == len(schedule)
                flow = flow_of(x, t, is_exit)
                x = advance(i, x, flow, partial(self._noise, block.index, i + 1))
                yield self._step("denoising")
        except GeneratorExit:
            self._truncate(block.start)  # what the cache holds of this block is noise
            raise
        return self._with_known(x, block, noise, sigma=0.0, passes_left=0)

    def _flow_of(self, block: Block, view: View | None) -> Callable[[Tensor, float, bool], Tensor]:
        """How a block's denoising passes are made: (latents, timestep, whether it is the last) to their flow."""
        record, tokens = self._networks.record, block.count * self._geometry.tokens_per_latent
        if record is None or tokens > SMALL_TOKENS or self._guide.biases(block):  # biases come from the host
            return lambda x, t, is_exit: self._flow(x, t, block, view, graph=is_exit and self._graph != "none")
        played = Played(lambda x, t: self._flow(x, t, block, view), record)
        return lambda x, t, _: played(x, torch.full((), t, device=self._device))

    def _flow(
        self,
        x: Tensor,
        t: float | Tensor,
        block: Block,
        view: View | None = None,
        clean: bool = False,
        graph: bool = False,
    ) -> Tensor:
        """One pass under each prompt: the flow of the block's latents, after guidance. VACE speaks of a view alone."""
        with torch.set_grad_enabled(graph):
            flows = [self._pass(x, t, block, view, clean, prompt, cache) for prompt, cache in self._branches]
        if len(flows) == 1:
            return flows[0]
        towards, away = flows
        return away + self._sampling.guidance * (towards - away)

    def _pass(
        self,
        x: Tensor,
        t: float | Tensor,
        block: Block,
        view: View | None,
        clean: bool,
        prompt: Prompt,
        cache: KvCache | None,
    ) -> Tensor:
        networks, how = self._networks, self._networks.how
        dit, text = (networks.clean, prompt.clean_text) if clean and networks.clean else (networks.dit, prompt.text)
        rotation = cache.rotation if cache else self._table.at(block.start, block.count)
        biases = self._guide.biases(block)
        groups = cache.groups(biases) if cache and biases else self._groups(block.latents, biases)
        with kernel_preference():
            hints = self._hints(x, t, block, view, prompt) if view else ()
            return dit(x, self._timesteps(t), text, rotation, cache, hints, how, groups=groups)

    def _hints(self, x: Tensor, t: float | Tensor, block: Block, view: View, prompt: Prompt) -> Sequence[Tensor]:
        """What the VACE branch has to say about the block."""
        dit, vace, guide = self._networks.dit, self._networks.vace, self._guide
        assert vace
        tokens = dit.embed_latents(torch.cat((x, view.future), dim=1))
        span = range(block.start, block.start + view.context.shape[1])
        rotation = self._view_table.at(block.start if guide.lookahead else 0, len(span))
        groups = self._groups(span, guide.focus.biases(span, guide.keyframes))
        if guide.lookahead:
            timesteps = self._timesteps(t, block.count, view.future.shape[1])
            how = How(self._networks.how.attend)  # the view shrinks towards the end: compiled, it would be each time
        else:
            timesteps, how = self._timesteps(t), self._networks.how  # by itself, a block is a clip of its own
        hints = vace(tokens, dit.embed_time(timesteps).blocks, view.context, prompt.vace_text, rotation, how, groups)
        own = block.count * self._geometry.tokens_per_latent
        return [guide.strength * hint[:, :own] for hint in hints]

    def _groups(self, span: range, biases: Mapping[int, tuple[float, ...]]) -> Sequence[Group]:
        """The tokens of a run of latents that attend to each other, without a cache."""
        tokens = self._geometry.tokens_per_latent
        places = ((slice(i * tokens, (i + 1) * tokens), biases.get(p, (0.0,))) for i, p in enumerate(span))
        return grouped(places) if biases else ()

    def _timesteps(self, t: float | Tensor, count: int = 1, future: int = 0) -> Tensor:
        """[B, F]: one timestep for all latents, or each its own where `future` ones are still pure noise."""
        timesteps = torch.full((1, count + future), PURE_NOISE_T, device=self._device)
        timesteps[:, :count] = t
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
        return len(self._guide.held(block, passes_left=0)) == block.count

    def _known(self, block: Block) -> Tensor:
        """Clean latents of a block that is known as a whole."""
        return torch.cat([self._guide.known[position] for position in block.latents], dim=1)

    def _with_known(self, x: Tensor, block: Block, noise: Tensor, sigma: float, passes_left: int) -> Tensor:
        """x with the block's known latents put in, as noisy as the rest; without those that are released by now."""
        held = self._guide.held(block, passes_left)
        x = x.clone() if held else x
        for position in held:
            place = slice(position - block.start, position - block.start + 1)
            x[:, place] = mix(self._guide.known[position], noise[:, place], sigma)
        return x

    def _pixels(self, block: Block, latents: Tensor) -> Tensor | None:
        """Decode what is needed of a block."""
        if self._decode is None:
            return None
        return self._decode(latents[:, : self._geometry.needed_latents - block.start])

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

    def _looked_back_at(self, block: Block) -> list[Block]:
        """What must be passed again before a block, when prompts change over there."""
        memory = self._memory
        if memory is None or not memory.renew:
            return []
        return looked_back_at(block, self._geometry, memory.window, memory.sink, self._pinned)

    def _count_passes(self) -> int:
        denoising = sum(len(self._schedule(block)) for block in self._geometry.made if not self._is_known(block))
        renewing = sum(len(self._looked_back_at(block)) for block in self._script.changes(self._geometry))
        remembering = len(self._geometry.made) - 1 if self._memory else 0
        return len(self._unplaced) + denoising + renewing + remembering


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
