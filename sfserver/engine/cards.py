"""What a card of so much memory can do with a model: the first of its ways that fits, and what was given up for that.

Given up in this order: decoding beside the next block (a little speed), the window down to three blocks (motion is
forgotten sooner), the model's own decoder (a little softness), then the size of the picture. Arithmetic only.
"""

from __future__ import annotations

from collections.abc import Iterator

from attrs import frozen

from .capacity import Decoder, Need, largest_size, need_of
from .geometry import SIZE_MULTIPLE, latent_of, plan
from .presets import Preset

LEAST_BLOCKS = 3
"""A window holds this many blocks besides its sink: with fewer, motion is forgotten before it is over."""
USABLE = 0.93
"""Of a card's memory: the rest is the desktop's, or lies between what the allocator has given out."""
GIB = 1024**3


@frozen
class Way:
    """One way to make a clip."""

    strategy: str
    window: int
    decoder: Decoder
    beside: bool
    width: int
    height: int
    bytes: int

    def changes(self, preset: Preset) -> dict[str, str | int]:
        """Settings that are not the preset's own."""
        usual = {"strategy": preset.strategies[0], "window": preset.window, "decoder": "wan"}
        chosen = {"strategy": self.strategy, "window": self.window, "decoder": self.decoder}
        return {name: value for name, value in chosen.items() if value != usual[name]}


def way_on(
    preset: Preset,
    usable_bytes: int,
    width: int,
    height: int,
    num_frames: int,
    keyframes: int = 2,
    has_tae: bool = True,
    eight_bit: bool = False,
) -> Way | None:
    """The best way that fits; None where not even a small picture does. `eight_bit` is of the large matrices."""
    latents = latent_of(num_frames - 1) + 1
    needs = [
        (strategy, window, need_of(preset, strategy, window, latents, keyframes, decoder, eight_bit))
        for strategy, window, decoder in ways(preset, has_tae)
    ]
    for strategy, window, need in needs:
        for beside in (True, False):
            taken = need.at(width, height, beside)
            if taken <= usable_bytes:
                return Way(strategy, window, need.decoder, beside, width, height, taken)
    return _smaller(needs[-1][0], needs[-1][1], needs[-1][2], usable_bytes, width, height, num_frames)


def _smaller(
    strategy: str, window: int, need: Need, usable_bytes: int, width: int, height: int, num_frames: int
) -> Way | None:
    size = largest_size(need, plan(width, height, num_frames, need.per_pass), usable_bytes)
    if size is None or min(size) < 8 * SIZE_MULTIPLE:  # nobody wants less
        return None
    beside = need.at(*size, beside=True) <= usable_bytes
    return Way(strategy, window, need.decoder, beside, *size, need.at(*size, beside))


def ways(preset: Preset, has_tae: bool) -> Iterator[tuple[str, int, Decoder]]:
    """(strategy, window, decoder), the usual one first, those that give up more later."""
    usual = preset.strategies[0]
    least = preset.sink + LEAST_BLOCKS * preset.per_block
    windows = [preset.window]
    if usual != "joint":
        windows += range(preset.window - preset.per_block, least - 1, -preset.per_block)
    decoders: list[Decoder] = ["wan", "tae"] if has_tae else ["wan"]
    for decoder in decoders:
        for window in windows:
            yield usual, window, decoder
        if "joint" in preset.strategies and usual != "joint":
            yield "joint", preset.window, decoder


def told(preset: Preset, way: Way | None, card_gb: float, width: int, height: int) -> str:
    """One line for whoever owns the card."""
    if way is None:
        return f"{preset.id} does not fit {card_gb:g} GB; the draft engine needs no GPU"
    given_up = [f"{name} {value}" for name, value in way.changes(preset).items()]
    if (way.width, way.height) != (width, height):
        given_up.insert(0, f"that size instead of {width}x{height}")
    if not way.beside:
        given_up.append("decoding in turn")
    how = f" with {', '.join(given_up)}, so that it fits" if given_up else ", nothing given up"
    return f"{preset.id} at {way.width}x{way.height} takes {way.bytes / 1e9:.1f} of {card_gb:g} GB{how}"


def usable(card_gib: float) -> int:
    return int(card_gib * GIB * USABLE)
