"""How much device memory a stage needs, before it starts: the arithmetic of `engine.capacity`, and what backward keeps.

An estimate. What is exact is exact (weights, moments, keys and values); what one layer holds at once while it is
computed again is taken as three times what it holds in use. Nothing here was measured on a GPU.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from attrs import evolve, frozen

from ..engine.capacity import OVERHEAD_BYTES, dit_parameters
from ..engine.geometry import PATCH
from ..engine.rollout import Graph
from ..errors import UserError
from ..model.config import DitConfig
from .lora import TARGETS

_LEARNING_BYTES = 4 + 4 + 8
"""Of a value that learns: itself, its gradient and two moments, in float32."""
_AVERAGED_BYTES = 4
_IN_USE, _COPIES = 2, 2
"""Bytes of a value in bfloat16: a frozen weight; what autocast makes of one that learns."""
_ONE_LAYER_AGAIN = 3


@frozen
class Load:
    """What decides the memory of a stage."""

    config: DitConfig
    latents: int
    """Of a clip."""
    height: int
    width: int
    """Of a latent."""
    batch: int
    per_block: int
    lora_rank: int = 0
    dmd: bool = False
    graph: Graph = "exit"
    recompute: bool = False
    offload: bool = False
    rolls_out: bool = True

    @property
    def tokens(self) -> int:
        """Of one latent of all clips of the batch."""
        return self.batch * (self.height // PATCH) * (self.width // PATCH)


def needed(load: Load) -> Mapping[str, int]:
    """Bytes on the device by what they are for, at the worst moment of a step."""
    parts = {"weights": _weights(load), "what learns": _learning(load)}
    rollout, whole = _rollout(load) if load.rolls_out else 0, _kept(load, load.latents * load.tokens)
    # The critic learns when the rollout that it learns from has let its graph go.
    parts["what backward needs"] = max(rollout, whole) if load.dmd or not load.rolls_out else rollout
    parts["prompts"] = 4 * 2 * load.batch * load.config.layers * load.config.text_len * load.config.dim * 2
    parts["one layer at work"] = _one_layer(load, load.latents if load.dmd or not load.rolls_out else load.per_block)
    parts["libraries"] = OVERHEAD_BYTES
    return parts


def _networks(load: Load) -> tuple[int, int]:
    """Transformers that learn, and transformers' weights that stay."""
    if load.lora_rank:
        return (2 if load.dmd else 1), (2 if load.dmd else 1)  # teacher and critic lie there once
    return (2, 1) if load.dmd else (1, 0)


def _weights(load: Load) -> int:
    """Of what does not learn."""
    c, (_, staying) = load.config, _networks(load)
    plain = evolve(c, vace_layers=())
    matrices = 6 * c.dim * c.dim + 2 * c.dim * c.ffn_dim  # of one layer, those that may wait elsewhere
    there = dit_parameters(plain) - (c.layers - 1) * matrices if load.offload else dit_parameters(plain)
    return staying * there * _IN_USE


def _learning(load: Load) -> int:
    c, (learning, _) = load.config, _networks(load)
    if load.lora_rank:
        values, copies = c.layers * len(TARGETS) * 2 * c.dim * load.lora_rank, 0
    else:
        values, copies = dit_parameters(evolve(c, vace_layers=())), _COPIES
    return values * (learning * (_LEARNING_BYTES + copies) + _AVERAGED_BYTES)


def _kept(load: Load, tokens: int) -> int:
    """By all layers for backward, of a pass over so many tokens: a float32 stream, q, k, v and the answer; without
    computing again also what lies between."""
    c = load.config
    per_token = 4 * c.dim + 4 * c.dim * 2
    if not load.recompute:
        per_token += 10 * c.dim * 4 + (c.dim * 6 + 2 * c.ffn_dim) * 2
    return c.layers * tokens * per_token


def _rollout(load: Load) -> int:
    """Every block's last pass, and with it all keys and values that it saw, which the cache joins anew each time."""
    c, held, total = load.config, 1, 0
    joined = 2 * 2 * c.dim * c.layers * load.tokens
    cache = joined * load.latents
    for start in range(1, load.latents, load.per_block):
        count = min(load.per_block, load.latents - start)
        held += count
        passes = 2 if load.graph == "exit+memory" else 1
        total += passes * (_kept(load, count * load.tokens) + joined * min(held + 1, load.latents))
    return total + cache


def _one_layer(load: Load, latents: int) -> int:
    c = load.config
    return _ONE_LAYER_AGAIN * latents * load.tokens * (2 * c.dim * 4 + max(4 * c.dim, 2 * c.ffn_dim + c.dim) * 2)


def told(parts: Mapping[str, int]) -> str:
    """As in: weights 5.7 GB, what learns 0.3 GB, ...: 14.2 GB in all."""
    names: Iterable[str] = (f"{name} {size / 1e9:.1f} GB" for name, size in parts.items())
    return f"{', '.join(names)}: {sum(parts.values()) / 1e9:.1f} GB in all"


def check_fits(stage: str, parts: Mapping[str, int], available: int) -> None:
    """Raises UserError where a stage needs more than there is."""
    total = sum(parts.values())
    if total > available:
        raise UserError(
            f"stage {stage} needs about {total / 1e9:.1f} GB and {available / 1e9:.1f} GB are free on the device; "
            "prepare clips at a smaller --size or of fewer --frames, or set recompute, a lora_rank and offload"
        )
