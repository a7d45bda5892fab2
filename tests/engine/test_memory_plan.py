"""What `capacity` says a clip takes, against what its tensors hold at most: full size, counted on the meta device."""

from __future__ import annotations

import weakref
from typing import Any

import pytest
import torch
from attrs import evolve
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from sfserver.engine import capacity
from sfserver.engine.geometry import Geometry, plan
from sfserver.engine.guide import AT_REST, Guide, Pull
from sfserver.engine.noise import make_schedule
from sfserver.engine.presets import SELF_FORCING, SGF_PLUS, TRAINED_LATENTS, Preset
from sfserver.engine.rollout import Made, Memory, Networks, Rollout, Sampling
from sfserver.engine.script import Prompt
from sfserver.model.dit import Dit, How
from sfserver.model.vae import VaeConfig, WanVae

SIZE = (832, 480)


class Held(TorchDispatchMode):
    """Counts the bytes of all storages that were made while it is entered and are still alive."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor) and leaf.device.type == "meta":
                self.count(leaf)
        return out

    def count(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self._known:
            return
        self._known.add(key)
        self.now += size
        self.most = max(self.most, self.now)
        weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size


def fused(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """As much as a fused kernel keeps."""
    return torch.empty_like(q)


def test_what_is_dropped_is_not_counted() -> None:
    with Held() as held:
        kept = torch.empty(1000, device="meta")
        for _ in range(3):
            kept = kept + 1
    assert (held.now, held.most) == (4000, 8000)


@torch.no_grad()
def counted_bytes(preset: Preset, pull: Pull) -> int:
    """The most that is held by weights, cache and two blocks of a clip of the usual size, decoded."""
    geometry = plan(*SIZE, 81, preset.per_block, [1])
    with torch.device("meta"):
        transformers = [Dit(preset.dit).set_compute_dtype(torch.bfloat16) for _ in range(preset.transformers)]
        vae = WanVae(VaeConfig()).to(torch.bfloat16)
    with Held() as held:
        for network in (*transformers, vae):
            for weight in network.parameters():
                held.count(weight)
        run = clip(preset, geometry, pull, transformers, vae)
        made = 0
        for event in run.run():
            made += isinstance(event, Made)
            if made == 3:
                break
    return held.most


def clip(preset: Preset, geometry: Geometry, pull: Pull, transformers: list[Dit], vae: WanVae) -> Rollout:
    def noise(block: int, step: int) -> Tensor:
        return torch.empty(geometry.latent_shape(geometry.made[block].count), device="meta")

    dit, clean = transformers[0], transformers[1] if len(transformers) > 1 else None
    words = torch.empty(1, 9, preset.dit.text_dim, device="meta")
    known = {at: torch.empty(geometry.latent_shape(1), device="meta") for at in (0, geometry.latents - 1)}
    state = vae.new_decoder_state()
    return Rollout(
        Networks(dit, how=How(fused), clean=clean),
        geometry,
        Sampling(make_schedule((1000,), preset.shift)),
        [Prompt(dit.embed_prompt(words), clean_text=clean.embed_prompt(words) if clean else [])],
        noise,
        Guide(known=known, pull=pull),
        Memory(preset.window, preset.sink, preset.policy, preset.trained),
        lambda latents: vae.decode(latents, state),
        "meta",
        torch.bfloat16,
    )


def planned_bytes(preset: Preset, raw: int = 0) -> int:
    need = capacity.need_of(preset, "anchor", preset.window, TRAINED_LATENTS, keyframes=2)
    return evolve(need, raw=raw).at(*SIZE) - capacity.OVERHEAD_BYTES


@pytest.mark.parametrize("preset", [SELF_FORCING, SGF_PLUS], ids=lambda preset: preset.id)
def test_what_is_planned_is_what_is_held(preset: Preset) -> None:
    counted = counted_bytes(preset, AT_REST)
    assert planned_bytes(preset) == pytest.approx(counted, rel=0.1)
    if preset.transformers > 1:
        plain = evolve(preset, parts=tuple(part for part in preset.parts if part.role != "clean"))
        assert planned_bytes(plain) < 0.9 * counted, "the control: one transformer forgotten"


def test_a_rollout_asks_the_device_for_nothing() -> None:
    """Meta tensors have no numbers: whoever waited for one, as a check of every block did once, would raise here."""
    preset = evolve(SELF_FORCING, dit=evolve(SELF_FORCING.dit, layers=1))
    with torch.device("meta"), torch.no_grad():
        dit, vae = Dit(preset.dit).set_compute_dtype(torch.bfloat16), WanVae(VaeConfig(dim=8))
        run = clip(preset, plan(*SIZE, 81, 3, [1]), AT_REST, [dit], vae)
        made = [event for event in run.run() if isinstance(event, Made)]
        assert len(made) == 8
        with pytest.raises(RuntimeError, match="meta"):
            bool(made[-1].latents.isfinite().all())


def test_keys_that_are_turned_anew_are_planned() -> None:
    """Of a clip small enough to look at the cache itself."""
    preset = evolve(SELF_FORCING, dit=evolve(SELF_FORCING.dit, layers=2))
    caches = []
    for pull in (AT_REST, Pull(reach=3)):
        geometry = plan(*SIZE, 81, 3, [1])
        with torch.device("meta"):
            dit, vae = Dit(preset.dit).set_compute_dtype(torch.bfloat16), WanVae(VaeConfig(dim=8))
        run = clip(preset, geometry, pull, [dit], vae)
        steps = run.run()
        next(steps), next(steps)  # both keyframes are placed
        caches.append(run._branches[0][1])
    rest, turned = (cache.nbytes for cache in caches if cache)
    need = capacity.need_of(preset, "anchor", preset.window, TRAINED_LATENTS, keyframes=2)
    assert need.cache_bytes(*SIZE) == rest
    assert evolve(need, raw=1).cache_bytes(*SIZE) == turned > rest
