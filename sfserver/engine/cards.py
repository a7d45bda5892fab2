"""What a card of so much memory can do with a model: the first of its ways that fits, and what was given up for that.

Given up in this order: decoding beside the next block (a little speed), decoding the picture as a whole (a little more
of it), the window down to three blocks (motion is forgotten sooner), the model's own decoder (a little softness), then
the size of the picture. Arithmetic only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from attrs import evolve, frozen
from sfwire.messages import Value

from .capacity import Decoder, Need, largest_size, need_of
from .geometry import Geometry, latent_of, plan
from .presets import TRAINED_LATENTS, Preset

LEAST_BLOCKS = 3
"""A window holds this many blocks besides its sink: with fewer, motion is forgotten before it is over."""
LEAST_SHARE = 0.5
"""Of a side, to which it may be made smaller: less is a preview of the clip that was asked for."""
USABLE = 0.93
"""Of a card's memory: the rest is the desktop's, or lies between what the allocator has given out."""
GIB = 1024**3
NOTHING_SET: Mapping[str, Value] = {}


@frozen
class Way:
    """One way to make a clip."""

    strategy: str
    window: int
    decoder: Decoder
    tiled: bool
    beside: bool
    width: int
    height: int
    bytes: int

    def changes(self, preset: Preset) -> dict[str, Value]:
        """Settings that are not the preset's own."""
        usual = {"strategy": preset.strategies[0], "window": preset.window, "decoder": "wan", "tiled": False}
        chosen = {"strategy": self.strategy, "window": self.window, "decoder": self.decoder, "tiled": self.tiled}
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
    settled: Mapping[str, Value] = NOTHING_SET,
    prompts: int = 1,
) -> Way | None:
    """The best way that fits; None where not even a small picture does. `eight_bit` is of the large matrices; settings
    that are `settled` stay as they are. Sizes are multiples of the model's.
    """
    latents = latent_of(num_frames - 1) + 1

    def need(strategy: str, window: int, decoder: Decoder, tiled: bool) -> Need:
        plain = need_of(preset, strategy, window, latents, keyframes, decoder, eight_bit, tiled)
        return evolve(plain, raw=_kept_twice(preset, strategy, keyframes, settled))

    needs = [(way[0], way[1], need(*way)) for way in ways(preset, has_tae, settled, num_frames, prompts)]
    for strategy, window, its in needs:
        for beside in (False,) if its.tiled else (True, False):
            taken = its.at(width, height, beside)
            if taken <= usable_bytes:
                return Way(strategy, window, its.decoder, its.tiled, beside, width, height, taken)
    return _smaller(needs, usable_bytes, plan(width, height, num_frames, preset.per_block))


def _kept_twice(preset: Preset, strategy: str, keyframes: int, settled: Mapping[str, Value]) -> int:
    """Latents whose keys are kept as they came as well: keyframes to come that shall seem nearer than they are."""
    is_near = _whole(settled.get("anchor_reach", TRAINED_LATENTS), TRAINED_LATENTS) < TRAINED_LATENTS
    is_told = preset.policy == "absolute" and "anchor" in strategy.split("+")
    return keyframes - 1 if is_near and is_told else 0


def _smaller(needs: Sequence[tuple[str, int, Need]], usable_bytes: int, geometry: Geometry) -> Way | None:
    """The largest picture that any of the ways can make, by the first of those that can."""
    found: list[Way] = []
    for strategy, window, need in needs:
        size = largest_size(need, geometry, usable_bytes)
        if size and size[0] >= LEAST_SHARE * geometry.width and size[1] >= LEAST_SHARE * geometry.height:
            found.append(Way(strategy, window, need.decoder, need.tiled, False, *size, need.at(*size)))
    return max(found, key=lambda way: way.width * way.height, default=None)


def ways(
    preset: Preset,
    has_tae: bool,
    settled: Mapping[str, Value] = NOTHING_SET,
    num_frames: int = 81,
    prompts: int = 1,
) -> Iterator[tuple[str, int, Decoder, bool]]:
    """(strategy, window, decoder, tiled), the usual one first, those that give up more later. Under several prompts
    none that makes the clip at once."""

    def is_left(name: str, value: Value) -> bool:
        return name not in settled or str(settled[name]).lower() == str(value).lower()

    usual = str(settled.get("strategy", preset.strategies[0]))
    least = preset.sink + LEAST_BLOCKS * preset.per_block
    windows = [_whole(settled.get("window", preset.window), preset.window)]
    if "joint" not in usual.split("+") and "window" not in settled:
        windows += range(preset.window - preset.per_block, least - 1, -preset.per_block)
    decoders: list[Decoder] = ["wan", "tae"] if has_tae else ["wan"]
    memories = [(usual, window) for window in windows]
    if "joint" in preset.strategies and usual != "joint" and is_left("strategy", "joint"):
        memories.append(("joint", windows[0]))
    if prompts > 1:
        latents = latent_of(num_frames - 1) + 1
        memories = [way for way in memories if not _is_at_once(preset, way[0], latents)]
    for decoder in decoders:
        for strategy, window in memories:
            for tiled in (False, True):
                if is_left("decoder", decoder) and is_left("tiled", tiled):
                    yield strategy, window, decoder, tiled


def _whole(value: Value, otherwise: int) -> int:
    """A number that may have been typed; one that is none is refused by whoever checks the request."""
    return int(value) if str(value).isdecimal() else otherwise


def _is_at_once(preset: Preset, strategy: str, latents: int) -> bool:
    """Whether one block is all there is to make."""
    parts = strategy.split("+")
    return "joint" in parts or latents - ("anchor" in parts) <= preset.per_block


def told(preset: Preset, way: Way | None, card_gb: float, width: int, height: int) -> str:
    """One line for whoever owns the card."""
    if way is None:
        return f"{preset.id} does not fit {card_gb:g} GB at half of {width}x{height}; the draft engine needs no GPU"
    given_up: list[str] = []
    if (way.width, way.height) != (width, height):
        given_up.append(f"smaller than {width}x{height}")
    if way.strategy != preset.strategies[0]:
        given_up.append("all of the clip at once, without early frames" if way.strategy == "joint" else way.strategy)
    if way.window != preset.window:
        given_up.append(f"window {way.window} instead of {preset.window}")
    if way.decoder != "wan":
        given_up.append("the small decoder")
    if way.tiled:
        given_up.append("decoding in strips")
    elif not way.beside:
        given_up.append("decoding in turn")
    how = ", ".join(given_up) or "nothing given up"
    return f"{preset.id} at {way.width}x{way.height} takes {way.bytes / GIB:.1f} of {card_gb:g} GB: {how}"


def usable(card_gib: float) -> int:
    return int(card_gib * GIB * USABLE)
