"""Device memory, counted: the networks of full size run on the meta device, and what is alive is added up call by call.

Nothing is computed. Counted is what eager torch would ask its allocator for on CUDA, where a norm and an attention are
one kernel each and make nothing but their answer; not what libraries take for themselves, nor what the allocator
cannot join together again. `python -m sfserver.bench.counted docs/figures/memory.json` keeps the figures for the page.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

import torch
import torch.nn.functional as F
from attrs import evolve
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ..engine.capacity import USUAL_SIZE, Decoder, Need
from ..engine.geometry import Geometry, plan
from ..model.cache import CacheShape, KvCache
from ..model.config import WAN_1_3B, DitConfig
from ..model.dit import Dit, How
from ..model.eightbit import Kind, quantise
from ..model.positions import Positions
from ..model.rope import RopeTable
from ..model.tae import Tae, TaeConfig
from ..model.vae import StreamState, VaeConfig, WanVae
from .report import Measure, write_json

DTYPE = torch.bfloat16
LAYERS_SAID = "2 layers of the 1.3B model at 832x480, beside weights and text"


class Peak(TorchDispatchMode):
    """The most bytes alive at once of what was made while it is entered."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self._alive: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {storage._cdata for storage in _storages((args, kwargs))}
        answer = func(*args, **(kwargs or {}))
        for storage in _storages(answer):
            if storage._cdata not in given | self._alive:  # no view, and not made before
                self._count(storage)
        return answer

    def _count(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        self._alive.add(key)
        self.now += size
        self.most = max(self.most, self.now)
        weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        self._alive.discard(key)
        self.now -= size


def _storages(values: Any) -> list[torch.UntypedStorage]:
    return [value.untyped_storage() for value in tree_leaves(values) if isinstance(value, Tensor)]


@contextmanager
def counting() -> Iterator[Peak]:
    """On the meta device, with the norm that is one kernel on CUDA counted as one."""
    plain = F.rms_norm
    F.rms_norm = lambda x, *rest, **options: torch.empty_like(x)  # pyright: ignore[reportAttributeAccessIssue]
    try:
        with torch.device("meta"), torch.no_grad(), Peak() as peak:
            yield peak
    finally:
        F.rms_norm = plain


def codec(decoder: str) -> WanVae | Tae:
    with torch.device("meta"):
        return (WanVae(VaeConfig()) if decoder == "wan" else Tae(TaeConfig())).to(DTYPE)


def decoding_bytes(network: WanVae | Tae, width: int, height: int, latents: int = 3) -> tuple[int, int]:
    """(what is kept between blocks, the most at once while a block in mid-stream is decoded, that among it)."""
    state = network.new_decoder_state()
    with torch.device("meta"):
        block = torch.zeros(1, latents, 16, height // 8, width // 8)
        network.decode(block, state)
    return _in_midstream(lambda: network.decode(block, state), state)


def encoding_bytes(network: WanVae | Tae, width: int, height: int) -> tuple[int, int]:
    """The same of encoding four frames."""
    state = network.new_encoder_state()
    with torch.device("meta"):
        network.encode(torch.zeros(1, 5, 3, height, width), state)
        frames = torch.zeros(1, 4, 3, height, width)
    return _in_midstream(lambda: network.encode(frames, state), state)


def _in_midstream(work: Any, state: StreamState) -> tuple[int, int]:
    with counting() as peak:
        work()
    return state.nbytes, peak.most


def pass_bytes(
    config: DitConfig, geometry: Geometry, count: int, window: int, eight_bit: Kind | None = None
) -> tuple[int, int]:
    """(of the cache, the most at once during a pass over `count` latents beside it). No cache where `window` is 0."""
    table = RopeTable(config.head_dim, geometry.latents, geometry.rows, geometry.columns, "meta")
    cache = None
    if window:
        tokens = geometry.tokens_per_latent
        shape = CacheShape(config.layers, config.heads, config.head_dim, tokens, window)
        cache = KvCache(shape, table, Positions("absolute"), "meta", DTYPE)
        cache.seat(0, count)
    with torch.device("meta"):
        dit = Dit(config).requires_grad_(False).set_compute_dtype(DTYPE)
        if eight_bit:
            quantise(dit, eight_bit)
        text = dit.embed_prompt(torch.zeros(1, 1, config.text_dim))
        x, t = torch.zeros(geometry.latent_shape(count)), torch.zeros(1, 1)
    rotation = cache.rotation if cache else table.at(0, count)
    with counting() as peak:
        dit(x, t, text, rotation, cache, how=How(lambda q, k, v: torch.empty_like(q)))
    return cache.nbytes if cache else 0, peak.most


def measure(on_stage: Callable[[str], None]) -> list[Measure]:
    """The memory plan over what is counted, for the usual size; two layers stand for thirty."""
    on_stage("memory, counted on the meta device")
    config, geometry = evolve(WAN_1_3B, layers=2), plan(*USUAL_SIZE, num_frames=81, per_block=3)
    coding: dict[Decoder, tuple[int, int]] = {
        name: decoding_bytes(codec(name), *USUAL_SIZE) for name in get_args(Decoder)
    }
    measures = []
    for window in (21, 12):
        cache, making = pass_bytes(config, geometry, 3, window)
        for name, (state, decoding) in coding.items():
            need = Need(config, 3, window, 0, DTYPE.itemsize, decoder=name)
            text = 2 * config.layers * config.text_len * config.dim * DTYPE.itemsize
            for beside in (False, True):
                counted = cache + (decoding + making if beside else max(state + making, decoding))
                planned = need.beyond_weights(*USUAL_SIZE, beside) - text
                where = f"window {window}, decoder {name}, decoding {'beside' if beside else 'in turn'}"
                how = f"planned {planned / 1e9:.2f} GB over counted {counted / 1e9:.2f} GB, {LAYERS_SAID}"
                measures.append(Measure(f"memory plan, {where}", planned / counted, 1.1, "low", "x", how))
    return measures


if __name__ == "__main__":
    facts = {"counted on": "the meta device", "torch": torch.__version__}
    write_json(measure(lambda stage: None), Path(sys.argv[1]), facts)
