"""The sizes of a Wan 2.1 transformer, as data.

A checkpoint's tensors tell width, depth and channels, but not the number of heads; these presets do.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import evolve, field, frozen

PATCH = (1, 2, 2)
"""Latents, rows and columns that one token covers: the same in every Wan 2.1 model."""


def _counts(instance: Any, attribute: Any, value: Any) -> None:
    if type(value) is not int or value < 1:
        raise ValueError(f"{attribute.name} is {value!r} and must be a whole number above 0")


def _is_small(instance: Any, attribute: Any, value: Any) -> None:
    if not isinstance(value, float) or not 0 < value < 1:
        raise ValueError(f"{attribute.name} is {value!r} and must be a fraction of 1")


def _are_layers(instance: Any, attribute: Any, value: Any) -> None:
    rising = isinstance(value, tuple) and all(type(n) is int for n in value) and list(value) == sorted(set(value))
    if not rising or (value and not 0 <= value[0] <= value[-1] < instance.layers):
        raise ValueError(f"{attribute.name} is {value!r} and must name some of {instance.layers} layers, in order")


def _divides_into_heads(instance: Any, attribute: Any, heads: int) -> None:
    if instance.dim % heads or instance.dim // heads % 2:
        raise ValueError(f"{heads} heads do not divide a width of {instance.dim} into heads of even width")


@frozen
class DitConfig:
    """Sizes of one transformer. Lengths are counted in channels unless they say otherwise.

    Raises ValueError for sizes that no transformer has.
    """

    dim: int = field(validator=_counts)
    ffn_dim: int = field(validator=_counts)
    layers: int = field(validator=_counts)
    heads: int = field(validator=[_counts, _divides_into_heads])
    text_dim: int = field(default=4096, validator=_counts)
    """Width of the text encoder's output."""
    text_len: int = field(default=512, validator=_counts)
    """Text rows after zero padding. The padding is attended to: the model was trained that way."""
    freq_dim: int = field(default=256, validator=_counts)
    """Width of the sinusoids that encode a timestep."""
    in_channels: int = field(default=16, validator=_counts)
    out_channels: int = field(default=16, validator=_counts)
    eps: float = field(default=1e-6, validator=_is_small)
    vace_layers: tuple[int, ...] = field(default=(), validator=_are_layers)
    """Layers whose output receives a hint of the VACE branch; empty for a model without one."""
    vace_in_channels: int = field(default=96, validator=_counts)
    """Inactive latent (16), reactive latent (16) and the 8 x 8 mask cells of each latent pixel (64)."""

    @property
    def head_dim(self) -> int:
        return self.dim // self.heads

    def with_vace(self, every: int) -> DitConfig:
        """The same transformer with a VACE branch that gives a hint to every `every`-th layer, from the first on."""
        return evolve(self, vace_layers=tuple(range(0, self.layers, every)))


WAN_1_3B = DitConfig(dim=1536, ffn_dim=8960, layers=30, heads=12)
WAN_14B = DitConfig(dim=5120, ffn_dim=13824, layers=40, heads=40)
TOY = DitConfig(dim=96, ffn_dim=160, layers=3, heads=3, text_dim=32, text_len=16, freq_dim=64)
"""Small enough that a test runs whole clips on a CPU."""

WAN_1_3B_VACE = WAN_1_3B.with_vace(every=2)
WAN_14B_VACE = WAN_14B.with_vace(every=5)
TOY_VACE = TOY.with_vace(every=2)

_OFFICIAL_NAMES = {
    "dim": "dim",
    "ffn_dim": "ffn_dim",
    "num_layers": "layers",
    "num_heads": "heads",
    "text_dim": "text_dim",
    "text_len": "text_len",
    "freq_dim": "freq_dim",
    "in_dim": "in_channels",
    "out_dim": "out_channels",
    "eps": "eps",
    "vace_layers": "vace_layers",
    "vace_in_dim": "vace_in_channels",
}


def from_official(config: Mapping[str, Any]) -> DitConfig:
    """Sizes from a `config.json` in the official layout; entries that describe nothing here are passed over.

    Raises KeyError where width, depth or heads are missing and ValueError where they do not fit together.
    """
    sizes = {ours: config[official] for official, ours in _OFFICIAL_NAMES.items() if official in config}
    for official in ("dim", "ffn_dim", "num_layers", "num_heads"):
        if official not in config:
            raise KeyError(official)
    sizes["vace_layers"] = tuple(sizes.get("vace_layers", ()))
    return DitConfig(**sizes)
