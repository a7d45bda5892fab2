"""Parts of a block by themselves: passes, decoders, and where a block's time goes."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..engine.geometry import FRAMES_PER_LATENT, plan
from ..engine.pipeline import line_of, to_pictures
from ..engine.presets import SELF_FORCING
from ..model.attention import kernel_preference
from ..model.cache import CacheShape, KvCache
from ..model.rope import RopeTable
from .flops import decode_flops, pass_flops
from .report import Measure
from .rig import PER_BLOCK, Decoder, Rig


class Parts:
    def __init__(self, rig: Rig) -> None:
        self._rig = rig

    def passes(self, width: int, height: int) -> list[Measure]:
        """One pass over a block in mid-stream, with a full cache of each length."""
        return [self._pass(width, height, held) for held in self._rig.scale.held]

    def _pass(self, width: int, height: int, held: int) -> Measure:
        one_pass = self._full_pass(width, height, held)
        config, tokens = self._rig.scale.dit, plan(width, height, 1, PER_BLOCK).tokens_per_latent
        ms, wall_ms = self._rig.timed(one_pass)
        target = 0.7 if held == 15 and self._rig.on_cuda else None  # G4
        flops = pass_flops(config, PER_BLOCK * tokens, held * tokens)
        goal = "G4" if held == 15 and (width, height) == self._rig.scale.sizes[0] else ""
        return self._rig.against_floor(f"pass, KV {held}, {width}x{height}", flops, ms, wall_ms, target, goal)

    def _full_pass(self, width: int, height: int, held: int) -> Callable[[], Tensor]:
        """A pass over a block that attends to so many latents, all of them in the cache."""
        geometry = plan(width, height, FRAMES_PER_LATENT * (held - 1) + 1, PER_BLOCK)
        config, tokens = self._rig.scale.dit, geometry.tokens_per_latent
        table = RopeTable(config.head_dim, held, geometry.rows, geometry.columns, self._rig.device)
        shape = CacheShape(config.layers, config.heads, config.head_dim, tokens, window=held)
        cache = KvCache(shape, table, device=self._rig.device, dtype=self._rig.dtype)
        x = torch.randn(geometry.latent_shape(PER_BLOCK), device=self._rig.device)
        t = torch.full((1, 1), 937.5, device=self._rig.device)

        def one_pass() -> Tensor:
            with kernel_preference():
                return self._rig.dit(x, t, self._rig.text, cache.rotation, cache, how=self._rig.how)

        for block in geometry.blocks:
            cache.seat(block.start, block.count)
            one_pass()
        return one_pass

    def decoding(self, name: str, decoder: Decoder, width: int, height: int) -> list[Measure]:
        """Decoding a block in mid-stream."""
        geometry = plan(width, height, 1, PER_BLOCK)
        latents, state = (
            torch.randn(geometry.latent_shape(PER_BLOCK), device=self._rig.device),
            decoder.new_decoder_state(),
        )
        ms, wall_ms = self._rig.timed(lambda: decoder.decode(latents, state))
        flops = decode_flops(decoder, width, height, PER_BLOCK)
        return [self._rig.against_floor(f"decode by {name}, {width}x{height}", flops, ms, wall_ms)]

    def stages(self, width: int, height: int) -> list[Measure]:
        """Where a block's time goes, at the full window: each stage by itself, as a share of all."""
        geometry = plan(width, height, FRAMES_PER_LATENT * (self._rig.scale.latents - 1) + 1, PER_BLOCK)
        steps, tae = len(SELF_FORCING.steps), self._rig.decoders["TAE"]
        one_pass = self._full_pass(width, height, self._rig.scale.latents)
        latents, state = torch.randn(geometry.latent_shape(PER_BLOCK), device=self._rig.device), tae.new_decoder_state()
        pixels = torch.rand(PER_BLOCK * FRAMES_PER_LATENT, 3, height, width, device=self._rig.device)
        pictures = to_pictures(pixels)
        line = line_of(self._rig.device)

        def fetched() -> Tensor:
            (copy,), there = line.fetch([pictures])
            while not there.reached():
                pass
            return copy.float()[:1]

        took = {
            f"{steps} denoising passes": steps * self._rig.timed(one_pass)[0],
            "one clean pass": self._rig.timed(one_pass)[0],
            "decoding by TAE": self._rig.timed(lambda: tae.decode(latents, state))[0],
            "pixels to pictures": self._rig.timed(lambda: to_pictures(pixels).float())[0],
            "pictures to the host": self._rig.timed(fetched)[1],
        }
        total = sum(took.values())
        how = f"of {total:.1f} ms, were they done one after the other"
        return [
            Measure(f"stage: {name}", ms / total, None, "low", "of a block", f"{ms:.2f} ms, {how}")
            for name, ms in took.items()
        ]
