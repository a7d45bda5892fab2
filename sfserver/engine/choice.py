"""What `auto` means for one clip: an engine, and for a model that would not fit as it is, settings with which it does.

The first that is complete, can make the clip as it is asked for and fits the GPU's memory is taken; before a model is
given up, its other ways are tried (`cards`): a smaller window, the whole clip at once, the small decoder. What was set
by hand stays as it is, and an engine that has no such setting is passed over. Arithmetic only; imports no torch.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping

from attrs import evolve, field, frozen
from sfwire.errors import ErrorCode, RequestError
from sfwire.messages import EngineInfo, Value

from . import capacity
from .capacity import Decoder
from .cards import way_on, ways
from .geometry import latent_of
from .presets import TRAINED_LATENTS, Preset, find


@frozen
class Wanted:
    """What decides of a clip. Sizes in pixels."""

    width: int
    height: int
    num_frames: int
    keyframes: int = 2
    is_exact: bool = False
    """The pictures have this size already; otherwise they are fitted to the engine's."""
    prompts: int = 1
    """One after the other in the clip: then it cannot be made at once."""
    settings: Mapping[str, Value] = field(factory=dict[str, Value])
    """What was set by hand, as values or as they were typed."""

    def size_in(self, info: EngineInfo) -> tuple[int, int]:
        """About the size that the engine will make of it: what is too large is made smaller."""
        shrink = min(1.0, math.sqrt(info.max_pixels / (self.width * self.height)))
        return round(self.width * shrink), round(self.height * shrink)


@frozen
class Choice:
    """An engine, why it is this one in one sentence, and settings that it needs here; all others keep their default."""

    engine: str
    reason: str
    settings: dict[str, Value] = field(factory=dict[str, Value])


def choose(infos: Iterable[EngineInfo], memory_bytes: int, clip: Wanted, eight_bit: bool = False) -> Choice:
    """`infos` in order of preference, `memory_bytes` of the GPU, 0 without one; `eight_bit` is of large matrices.

    Raises RequestError where none will do.

    Without a GPU the first that needs none is taken: a diffusion model takes minutes for a frame there, which somebody
    may want but nobody expects.
    """
    passed_over: list[str] = []
    usable = [info for info in infos if info.available]
    for info in usable:
        if why_not := _cannot(info, clip):
            passed_over.append(why_not)
            continue
        found = _fitting(info, memory_bytes, clip, eight_bit)
        if isinstance(found, Choice):
            because = f"; {passed_over[0]}" if passed_over else ""
            return Choice(found.engine, f"{info.title}: {found.reason}{because}", found.settings)
        passed_over.append(found)
    if not usable:
        raise RequestError(ErrorCode.ENGINE_UNAVAILABLE, "no engine is complete; run sfserver models", "engine")
    if all(_cannot(info, clip) for info in usable):  # whoever checks the request names the value and the limit
        return Choice(usable[-1].id, passed_over[-1])
    raise RequestError(ErrorCode.ENGINE_UNAVAILABLE, f"no engine will do here: {'; '.join(passed_over)}", "engine")


def _cannot(info: EngineInfo, clip: Wanted) -> str | None:
    """Why the engine makes no such clip, whatever the memory."""
    if not info.min_frames <= clip.num_frames <= info.max_frames:
        return f"{info.title} makes clips of {info.min_frames} to {info.max_frames} frames"
    if clip.keyframes > info.max_keyframes:
        return f"{info.title} takes {info.max_keyframes} keyframes"
    if clip.is_exact and clip.width * clip.height > info.max_pixels:
        return f"{info.title} makes at most {info.max_pixels} pixels"
    if clip.is_exact and (clip.width % info.size_multiple or clip.height % info.size_multiple):
        return f"{info.title} makes sides that are multiples of {info.size_multiple}"
    known = {parameter.name: parameter for parameter in info.parameters}
    for name, value in clip.settings.items():
        if name not in known:
            return f"{info.title} has no setting {name}"
        if known[name].kind == "choice" and value not in known[name].choices:
            return f"{info.title} has no {name} {value}"
    return None


def _fitting(info: EngineInfo, memory_bytes: int, clip: Wanted, eight_bit: bool) -> Choice | str:
    """Settings with which it fits, or why it does not."""
    if not info.memory_bytes:
        return Choice(info.id, "the first that is complete and can do it")
    if not memory_bytes:
        return f"{info.title} is complete, but there is no GPU; ask for it by name if you can wait"
    preset, gpu = find(info.id), f"{memory_bytes / 1e9:.0f} GB"
    least = info.memory_bytes
    if preset is None:  # a folder of one's own
        fits = least <= memory_bytes
        return Choice(info.id, f"needs about {least / 1e9:.1f} of {gpu}") if fits else _too_large(info, least, gpu)
    has_tae, size = any(parameter.name == "decoder" for parameter in info.parameters), clip.size_in(info)
    latents, open_ways = latent_of(clip.num_frames - 1) + 1, list(_open_ways(preset, has_tae, clip))
    if not open_ways:
        return f"{info.title} makes this clip at once, under one prompt"
    for strategy, window, decoder in open_ways:
        need = capacity.need_of(preset, strategy, window, latents, clip.keyframes, decoder, eight_bit)
        if preset.policy == "absolute" and "anchor" in strategy.split("+"):
            need = evolve(need, raw=_kept_twice(clip))
        taken = need.at(*size)
        least = min(least, taken)
        if taken <= memory_bytes:
            settings = _settings(preset, strategy, window, decoder, clip.settings)
            how = f" with {', '.join(f'{name} {value}' for name, value in settings.items())}" if settings else ""
            return Choice(info.id, f"needs about {taken / 1e9:.1f} of {gpu}{how}", settings)
    smaller = way_on(preset, memory_bytes, *size, clip.num_frames, clip.keyframes, has_tae, eight_bit)
    is_less = (
        smaller is not None and (smaller.width, smaller.height) != size
    )  # else it is not the size that is too much
    instead = f"; {smaller.width}x{smaller.height} would fit" if smaller and is_less else ""
    return f"{_too_large(info, least, gpu)}{instead}"


def _open_ways(preset: Preset, has_tae: bool, clip: Wanted) -> Iterator[tuple[str, int, Decoder]]:
    """`ways` as far as the clip's settings and prompts leave them open."""
    latents = latent_of(clip.num_frames - 1) + 1
    seen: set[tuple[str, int, Decoder]] = set()
    for strategy, window, decoder in ways(preset, has_tae):
        set_strategy, set_window = clip.settings.get("strategy", strategy), clip.settings.get("window", window)
        set_decoder: Decoder = "tae" if clip.settings.get("decoder", decoder) == "tae" else "wan"
        way = str(set_strategy), _whole(set_window, window), set_decoder
        if way not in seen and not (clip.prompts > 1 and _is_at_once(preset, way[0], latents)):
            seen.add(way)
            yield way


def _kept_twice(clip: Wanted) -> int:
    """Latents whose keys are kept as they came as well: keyframes to come that shall seem nearer than they are."""
    is_near = _whole(clip.settings.get("anchor_reach", TRAINED_LATENTS), TRAINED_LATENTS) < TRAINED_LATENTS
    return clip.keyframes - 1 if is_near else 0


def _whole(value: Value, otherwise: int) -> int:
    """A number that may have been typed; one that is none is refused by whoever checks the request."""
    return int(value) if str(value).isdecimal() else otherwise


def _is_at_once(preset: Preset, strategy: str, latents: int) -> bool:
    """Whether one block is all there is to make."""
    parts = strategy.split("+")
    return "joint" in parts or latents - ("anchor" in parts) <= preset.per_block


def _too_large(info: EngineInfo, least: int, gpu: str) -> str:
    return f"{info.title} needs {least / 1e9:.1f} GB at the least, the GPU has {gpu}"


def _settings(
    preset: Preset, strategy: str, window: int, decoder: Decoder, by_hand: Mapping[str, Value]
) -> dict[str, Value]:
    """What is to be set for a way, beside what was set by hand."""
    settings: dict[str, Value] = {"strategy": strategy} if strategy != preset.strategies[0] else {}
    settings |= {"window": window} if window != preset.window else {}
    settings |= {"decoder": decoder} if decoder != "wan" else {}
    return {name: value for name, value in settings.items() if name not in by_hand}
