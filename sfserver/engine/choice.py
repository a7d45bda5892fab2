"""What `auto` means for one clip: an engine, and for a model that would not fit as it is, settings with which it does.

The first that is complete, can make the clip and fits the GPU's memory is taken; before a model is given up, its
other ways are tried (`cards`): a smaller window, the whole clip at once, the small decoder. What was set by hand stays
as it is, and an engine that has no such setting is passed over. Where none of them fits at
the clip's own size and nobody has settled that, the model that can make the largest picture is taken, with its size.
Arithmetic only; imports no torch.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from attrs import field, frozen
from sfwire.errors import ErrorCode, RequestError
from sfwire.messages import EngineInfo, Value

from .cards import GIB, USABLE, Way, way_on, ways
from .presets import Preset, find


@frozen
class Wanted:
    """What decides of a clip. Sizes in pixels."""

    width: int
    height: int
    num_frames: int
    keyframes: int = 2
    is_exact: bool = False
    """The pictures have this size already, or somebody has asked for it; otherwise they are fitted to the engine's."""
    prompts: int = 1
    """One after the other in the clip: then it cannot be made at once."""
    settings: Mapping[str, Value] = field(factory=dict[str, Value])
    """What was set by hand, as values or as they were typed."""

    def size_in(self, info: EngineInfo) -> tuple[int, int]:
        """About the size that the engine will make of it, in its multiples: what is too large is made smaller."""
        if self.is_exact:
            return self.width, self.height
        shrink = min(1.0, math.sqrt(info.max_pixels / (self.width * self.height)))
        step = info.size_multiple
        width, height = (max(step, round(side * shrink / step) * step) for side in (self.width, self.height))
        while width * height > info.max_pixels:  # rounding up went over the limit
            width, height = (width - step, height) if width >= height else (width, height - step)
        return width, height


@frozen
class Choice:
    """An engine, why it is this one in one sentence, and settings that it needs here; all others keep their default."""

    engine: str
    reason: str
    settings: dict[str, Value] = field(factory=dict[str, Value])
    size: tuple[int, int] | None = None
    """The clip's (width, height), where it must be smaller than was wanted."""

    @property
    def pixels(self) -> int:
        return self.size[0] * self.size[1] if self.size else 0


def choose(infos: Iterable[EngineInfo], memory_bytes: int, clip: Wanted, eight_bit: bool = False) -> Choice:
    """`infos` in order of preference, `memory_bytes` of the GPU, 0 without one; `eight_bit` is of large matrices.

    Raises RequestError where none will do.

    Without a GPU the first that needs none is taken: a diffusion model takes minutes for a frame there, which somebody
    may want but nobody expects.
    """
    passed_over: list[str] = []
    smaller: list[Choice] = []
    usable = [info for info in infos if info.available]
    for info in usable:
        if why_not := _cannot(info, clip):
            passed_over.append(why_not)
            continue
        if not info.memory_bytes and smaller:  # a model that makes it smaller, before an engine of another kind
            break
        found = fitting(info, memory_bytes, clip, eight_bit)
        if isinstance(found, str):
            passed_over.append(found)
        elif found.size:
            smaller.append(found)
        else:
            return _because(found, info, passed_over)
    if smaller:
        found = max(smaller, key=lambda choice: choice.pixels)  # of equals the first
        (info,) = (info for info in usable if info.id == found.engine)
        return _because(found, info, passed_over)
    if not usable:
        raise RequestError(ErrorCode.ENGINE_UNAVAILABLE, "no engine is complete; run sfserver models", "engine")
    if all(_cannot(info, clip) for info in usable):  # whoever checks the request names the value and the limit
        return Choice(usable[-1].id, passed_over[-1])
    raise RequestError(ErrorCode.ENGINE_UNAVAILABLE, f"no engine will do here: {'; '.join(passed_over)}", "engine")


def _because(found: Choice, info: EngineInfo, passed_over: list[str]) -> Choice:
    because = f"; {passed_over[0]}" if passed_over else ""
    return Choice(found.engine, f"{info.title}: {found.reason}{because}", found.settings, found.size)


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


def fitting(info: EngineInfo, memory_bytes: int, clip: Wanted, eight_bit: bool) -> Choice | str:
    """Settings with which an engine that can make the clip fits, and its size where that must be smaller; or why it
    does not."""
    if not info.memory_bytes:
        return Choice(info.id, "the first that is complete and can do it")
    if not memory_bytes:
        return f"{info.title} is complete, but there is no GPU; ask for it by name if you can wait"
    preset, usable = find(info.id), int(USABLE * memory_bytes)
    if preset is None:  # a folder of one's own
        needs = f"{info.memory_bytes / GIB:.1f} of {_gb(memory_bytes)}"
        return Choice(info.id, f"needs about {needs}") if info.memory_bytes <= usable else f"{info.title} needs {needs}"
    size = clip.size_in(info)
    has_tae = any(parameter.name == "decoder" for parameter in info.parameters)
    if not list(ways(preset, has_tae, clip.settings, clip.num_frames, clip.prompts)):
        return f"{info.title} makes this clip at once, under one prompt"
    given = clip.settings, clip.prompts
    way = way_on(preset, usable, *size, clip.num_frames, clip.keyframes, has_tae, eight_bit, *given)
    if way is None:
        return f"{info.title} does not fit {_gb(memory_bytes)} at half of {size[0]}x{size[1]}"
    made = (way.width, way.height)
    if made != size and clip.is_exact:
        return f"{info.title} does not fit {_gb(memory_bytes)} at {size[0]}x{size[1]}, {made[0]}x{made[1]} would"
    how = _how(preset, way, size)
    return Choice(
        info.id,
        f"needs about {way.bytes / GIB:.1f} of {_gb(memory_bytes)}{how}",
        {name: value for name, value in way.changes(preset).items() if name not in clip.settings},
        None if made == size else made,
    )


def _how(preset: Preset, way: Way, size: tuple[int, int]) -> str:
    changes = way.changes(preset)
    given_up = f" with {', '.join(f'{name} {value}' for name, value in changes.items())}" if changes else ""
    is_smaller = (way.width, way.height) != size
    return f"{given_up} at {way.width}x{way.height}, as {size[0]}x{size[1]} does not fit" if is_smaller else given_up


def _gb(memory_bytes: int) -> str:
    return f"{memory_bytes / GIB:.0f} GB"  # as it is sold
