"""What `auto` means for one clip: an engine, and for a model that would not fit as it is, settings with which it does.

The first that is complete, can make the clip and fits the GPU's memory is taken; before a model is given up, its
other ways are tried (`cards`): a smaller window, the whole clip at once, the small decoder. Arithmetic only; imports no
torch.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from attrs import field, frozen
from sfwire.errors import ErrorCode, RequestError
from sfwire.messages import EngineInfo, Value

from . import capacity
from .capacity import Decoder
from .cards import way_on, ways
from .geometry import latent_of
from .presets import Preset, find


@frozen
class Wanted:
    """What decides of a clip. Sizes in pixels."""

    width: int
    height: int
    num_frames: int
    keyframes: int = 2
    is_exact: bool = False
    """The pictures have this size already; otherwise they are fitted to the engine's."""

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
    return None


def _fitting(info: EngineInfo, memory_bytes: int, clip: Wanted, eight_bit: bool) -> Choice | str:
    """Settings with which it fits, or why it does not."""
    if not info.memory_bytes:
        return Choice(info.id, "the first that is complete and can do it here, see sfserver models")
    if not memory_bytes:
        return f"{info.title} is complete, but there is no GPU; ask for it by name if you can wait"
    preset, gpu = find(info.id), f"{memory_bytes / 1e9:.0f} GB"
    least = info.memory_bytes
    if preset is None:  # a folder of one's own
        fits = least <= memory_bytes
        return Choice(info.id, f"needs about {least / 1e9:.1f} of {gpu}") if fits else _too_large(info, least, gpu)
    has_tae, size = any(parameter.name == "decoder" for parameter in info.parameters), clip.size_in(info)
    for strategy, window, decoder in ways(preset, has_tae):
        latents = latent_of(clip.num_frames - 1) + 1
        need = capacity.need_of(preset, strategy, window, latents, clip.keyframes, decoder, eight_bit)
        taken = need.at(*size)
        least = min(least, taken)
        if taken <= memory_bytes:
            settings = _settings(preset, strategy, window, decoder)
            how = f" with {', '.join(f'{name} {value}' for name, value in settings.items())}" if settings else ""
            return Choice(info.id, f"needs about {taken / 1e9:.1f} of {gpu}{how}", settings)
    smaller = way_on(preset, memory_bytes, *size, clip.num_frames, clip.keyframes, has_tae, eight_bit)
    instead = f"; {smaller.width}x{smaller.height} would fit" if smaller else ""
    return f"{_too_large(info, least, gpu)}{instead}"


def _too_large(info: EngineInfo, least: int, gpu: str) -> str:
    return f"{info.title} needs {least / 1e9:.1f} GB at the least, the GPU has {gpu}"


def _settings(preset: Preset, strategy: str, window: int, decoder: Decoder) -> dict[str, Value]:
    settings: dict[str, Value] = {"strategy": strategy} if strategy != preset.strategies[0] else {}
    settings |= {"window": window} if window != preset.window else {}
    return settings | ({"decoder": decoder} if decoder != "wan" else {})
