"""All Wan 2.1 models: which of them this machine has, what each says of itself, and how one is loaded.

Asking imports no torch; loading does. How a job runs is in `wan_engine.py`.
"""

from __future__ import annotations

import os
import re
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import cattrs
from attrs import evolve
from sfwire.errors import ErrorCode, RequestError
from sfwire.limits import MAX_NAME_CHARS
from sfwire.messages import EngineInfo, Parameter

from ..config import ServerConfig
from ..model.config import DitConfig
from ..weights.files import WeightsError
from ..weights.manifest import MANIFEST_NAME, Manifest, problem
from ..weights.manifest import describe_folder as read_manifest
from . import capacity
from .draft import ID as DRAFT
from .geometry import SIZE_MULTIPLE
from .presets import PRESETS, SELF_FORCING, SELF_FORCING_VACE, SMALL_WORLD, TRAINED_LATENTS, Part, Preset, Role, find
from .stand_in import MAX_REASON_CHARS, described

if TYPE_CHECKING:
    from .base import Engine

VERSION = "5"
"""Of the pixels that these engines make; raised whenever the same request gives others, so with the draft engine's too:
their alpha is its motion, and what they are shown around keyframes may be."""
MAX_PIXELS = 1280 * 720
"""Twice the area that the models were trained at; beyond it they repeat themselves."""


def describe(config: ServerConfig) -> tuple[EngineInfo, ...]:
    """What every preset says of itself on this machine, complete or not."""
    return tuple(described(preset.id, preset.title, partial(_info_of_preset, preset, config)) for preset in PRESETS)


def _info_of_preset(preset: Preset, config: ServerConfig) -> EngineInfo:
    return info_of(preset, config.models_dir, config, f"run: sfserver fetch {preset.id}")


def load(engine_id: str, config: ServerConfig) -> Engine:
    """The engine of a preset. Raises RequestError where there is no such preset or it cannot be loaded."""
    preset = find(engine_id)
    if preset is None:
        known = ", ".join(preset.id for preset in PRESETS)
        raise RequestError(ErrorCode.UNKNOWN_ENGINE, f"there is no model {engine_id!r}; there are: {known}", "engine")
    (info,) = (info for info in describe(config) if info.id == engine_id)
    return load_preset(preset, info, config.models_dir, config)


def describe_own(config: ServerConfig) -> tuple[EngineInfo, ...]:
    """What the folders below the models folder say of themselves that hold a transformer and belong to no preset.

    Of folders that would share an id the first counts. One that cannot be read or described says why.
    """
    by_id: dict[str, EngineInfo] = {}
    for path in _candidates(config):
        own_id = _engine_id(path)
        if own_id not in by_id:
            by_id[own_id] = described(
                own_id, _printable(f"Weights in {path.name}"), partial(describe_folder, path, config)
            )
    return tuple(by_id.values())


def own_folder(engine_id: str, config: ServerConfig) -> Path | None:
    """The folder that is this engine."""
    return next((path for path in _candidates(config) if _engine_id(path) == engine_id), None)


def _candidates(config: ServerConfig) -> list[Path]:
    """Folders below the models folder that may be engines of their own, by name."""
    theirs = {Path(part.path).parts[0] for preset in PRESETS for part in preset.parts}
    try:
        folders = sorted(path for path in config.models_dir.iterdir() if path.is_dir() and path.name not in theirs)
    except OSError:  # no models folder: no models
        return []
    return [path for path in folders if _is_text(str(path)) and not _is_taken(_engine_id(path)) and _may_be_one(path)]


def _may_be_one(path: Path) -> bool:
    """Whether it holds a transformer, or says what it holds in a way that cannot be read."""
    try:
        return "dit" in read_manifest(path).components
    except WeightsError:
        return os.path.lexists(path / MANIFEST_NAME)


def _is_taken(engine_id: str) -> bool:
    return engine_id in (DRAFT, SMALL_WORLD.id, "auto") or find(engine_id) is not None


def describe_folder(path: Path, config: ServerConfig) -> EngineInfo:
    """What a folder of converted weights, given in place of an engine's id, says of itself.

    Raises RequestError where the folder does not say what it holds, has the name of another engine, or one that is no
    text.
    """
    if not _is_text(str(path)):
        raise _unavailable(f"{path}: is not UTF-8, so its weights cannot be opened; rename the folder")
    preset = _preset_of(path)
    if _is_taken(preset.id):
        message = f"{path}: would be engine {preset.id}, which is another; give the folder a name of its own"
        raise _unavailable(message)
    return info_of(preset, path, config, "convert it into the same folder")


def load_folder(path: Path, config: ServerConfig) -> Engine:
    """The engine of a folder of converted weights. Raises RequestError where it cannot be loaded."""
    return load_preset(_preset_of(path), describe_folder(path, config), path, config)


def _preset_of(path: Path) -> Preset:
    """The preset that a folder names, its parts all in the folder and its sizes those of its weights."""
    try:
        manifest = read_manifest(path)
        preset = _preset_named(manifest.preset) or (
            SELF_FORCING_VACE if "vace" in manifest.components else SELF_FORCING
        )
        sizes = _dit_config(manifest, preset)
    except WeightsError as error:
        raise _unavailable(str(error)) from None
    except (cattrs.BaseValidationError, ValueError) as error:
        message = f"{path}: describes a transformer that cannot be ({_innermost(error)}); convert it again"
        raise _unavailable(message) from None
    parts = tuple(evolve(part, path=Path(part.path).name) for part in preset.parts if part.role != "lora")
    title = _printable(f"{preset.title} in {path.name}")[:MAX_NAME_CHARS]
    return evolve(preset, id=_engine_id(path), title=title, dit=sizes, parts=parts)


def _preset_named(name: str) -> Preset | None:
    """One that can be fetched, or the small world's, which is trained here."""
    return next((preset for preset in (*PRESETS, SMALL_WORLD) if preset.id == name), None)


def _innermost(error: Exception) -> Exception:
    """What a size's own check says: the library that reads it wraps that in where it was at the time."""
    return _innermost(error.exceptions[0]) if isinstance(error, cattrs.BaseValidationError) else error


def _engine_id(folder: Path) -> str:
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", folder.absolute().name).strip("-._") or "folder"
    return name[:60]


def _printable(text: str) -> str:
    """Names of files may hold what no terminal should see, and bytes that are no text at all."""
    return "".join(c if c.isprintable() else "?" for c in text)


def _is_text(name: str) -> bool:
    return not any("\ud800" <= c <= "\udfff" for c in name)  # what Python makes of bytes that it cannot decode


def _unavailable(message: str) -> RequestError:
    return RequestError(ErrorCode.ENGINE_UNAVAILABLE, _printable(message), "engine")


def _dit_config(manifest: Manifest, preset: Preset) -> DitConfig:
    """Sizes of the transformer, and of its VACE branch where the preset has one; without weights, the preset's own."""
    role = "vace" if preset.part("vace") else "dit"
    component = manifest.components.get(role)
    if component is None:
        return preset.dit
    sizes = cattrs.structure(component.config, DitConfig)
    return sizes if role == "vace" else evolve(sizes, vace_layers=())


def info_of(preset: Preset, folder: Path, config: ServerConfig, remedy: str) -> EngineInfo:
    """An EngineInfo of a preset whose parts lie below `folder`. `remedy` is what to do about missing ones."""
    problems = (problem(folder / part.path, part.role) for part in _needed(preset))
    missing = tuple(_printable(f"{what[:MAX_REASON_CHARS]}; {remedy}") for what in problems if what)
    return EngineInfo(
        id=preset.id,
        title=preset.title,
        summary=_summary(preset),
        version="-".join([VERSION, config.precision, *_ways_of(config)]),
        licence=preset.licence,
        uses_prompt=True,
        uses_negative_prompt=True,
        available=not missing,
        missing=missing,
        size_multiple=SIZE_MULTIPLE,
        max_pixels=MAX_PIXELS,
        max_channels=4,
        min_frames=preset.frames[0],
        max_frames=preset.frames[1],
        memory_bytes=capacity.usual_bytes(preset, eight_bit=config.precision in ("fp8", "int8")),
        parameters=tuple(parameters_of(preset, has_tae=preset.part("vae") is not None and _has(preset, "tae", folder))),
    )


def _ways_of(config: ServerConfig) -> list[str]:
    """Other than the usual ones, which make the same pictures but for the last bits, or nearly the same."""
    return [way for way, usual in ((config.compile, "asked"), (config.attention, "auto")) if way != usual]


def _summary(preset: Preset) -> str:
    known = f"{preset.summary}. It makes 8 bits in sRGB; its alpha is the draft engine's motion"
    if not preset.negative_prompt:
        return known
    return f"{known}. Where you give no negative prompt, it keeps from: {preset.negative_prompt}"


def _needed(preset: Preset) -> list[Part]:
    return [part for part in preset.parts if not part.optional and part.role != "lora"]


def _has(preset: Preset, role: Role, folder: Path) -> bool:
    part = preset.part(role)
    return part is not None and problem(folder / part.path, role) is None


def load_preset(preset: Preset, info: EngineInfo, folder: Path, config: ServerConfig) -> Engine:
    """The engine of a preset whose parts lie below `folder`. Raises RequestError where it cannot be loaded."""
    if not info.available:
        raise _unavailable(f"engine {info.id} cannot run here: {'; '.join(info.missing)}")
    from . import wan_load  # from here on with torch

    try:
        return wan_load.load(preset, info, folder, config)
    except WeightsError as error:
        raise _unavailable(str(error)) from None


_SEAM = Parameter(
    "seam",
    "bool",
    True,
    "Take the colour shift of the VAE, as seen at the keyframes, out of the frames between them",
)
_COMPILE = Parameter(
    "compile",
    "bool",
    False,
    "Compile the model first: minutes once for each size, faster blocks ever after",
)
_VACE_STRENGTH = Parameter(
    "vace_strength", "float", 1.0, "Weight of the VACE branch, 0 switches it off", low=0.0, high=2.0
)
_NEGATIVE_STRENGTH = Parameter(
    "negative_strength", "float", 11.0, "How far to keep from the negative prompt", low=1.0, high=30.0
)
_DECODER = Parameter(
    "decoder",
    "choice",
    "wan",
    "wan is the model's own; tae is a small one, many times faster and a little softer",
    choices=("wan", "tae"),
)
_TILED = Parameter(
    "tiled",
    "bool",
    False,
    "Decode each picture in overlapping strips, for a GPU whose memory is short: a little slower, and nearly the same",
)


_ANCHORED = (
    Parameter(
        "anchor_strength",
        "float",
        0.0,
        "How early the end is felt: above 0 the clip heads for the next keyframe sooner, below 0 it wanders longer "
        "(each 0.7 doubles or halves it, -30 is not at all)",
        low=-30.0,
        high=5.0,
    ),
    Parameter(
        "anchor_fade",
        "float",
        0.0,
        "How much less of that right after a keyframe than right before the next one: the end is felt late, then fully",
        low=0.0,
        high=30.0,
    ),
    Parameter(
        "anchor_reach",
        "int",
        TRAINED_LATENTS,
        "How far off the next keyframe may seem, in steps of four frames: a small number makes the clip hurry towards "
        "it, the largest leaves it where it is",
        low=1,
        high=TRAINED_LATENTS,
    ),
)

_SEEN_AT_ONCE = (
    Parameter(
        "keyframe_focus",
        "float",
        0.0,
        "How firmly frames keep to the keyframes around them, to the nearer one most; for joint and look-ahead, which "
        "see where the clip is going (arXiv 2603.17651)",
        low=0.0,
        high=5.0,
    ),
    Parameter(
        "keyframe_nearness",
        "float",
        1.0,
        "How far apart frames seem there, as a share of what it is: below 1, far keyframes are heeded like nearer ones",
        low=0.25,
        high=1.0,
    ),
)


# Copies by default: in the small world both come out the same, while the draft engine has to be loaded and to look.
_ANCHOR_SHOWS = Parameter(
    "anchor_shows",
    "choice",
    "still",
    "What the frames around a keyframe are to the model: still copies of it, or the draft engine's in-betweens on the "
    "way there",
    choices=("still", "draft"),
)


def _release(preset: Preset) -> Parameter:
    help_text = (
        "Steps at the end in which the frames around a keyframe are let go and move on; at 0 they stand still for a "
        "sixth of a second. The keyframe itself is never touched"
    )
    high = max(len(preset.steps), preset.even_steps)
    return Parameter("anchor_release", "int", preset.release, help_text, low=0, high=high)


def _first_block(usual: int) -> Parameter:
    help_text = (
        "Latents of four frames that are made before the first picture comes: fewer come sooner, and less well, as the "
        f"model was trained on {usual}"
    )
    return Parameter("first_block", "int", usual, help_text, low=1, high=usual)


def parameters_of(preset: Preset, has_tae: bool) -> list[Parameter]:
    """What a client may set for a preset."""
    help_text = "How the keyframes reach the model; anchor and look-ahead steer from the first block on"
    parameters = [
        Parameter("strategy", "choice", preset.strategies[0], help_text, choices=preset.strategies),
        _SEAM,
        _COMPILE,
    ]
    if preset.strategies != ("joint",):
        help_text = "Latents of four frames that each block looks back at; fewer are faster and are forgotten sooner"
        low, high = preset.sink + preset.per_block, max(preset.window, 2 * TRAINED_LATENTS)
        parameters.append(Parameter("window", "int", preset.window, help_text, low=low, high=high))
        if preset.per_block > 1:
            parameters.append(_first_block(preset.per_block))
    if any("anchor" in name.split("+") for name in preset.strategies):
        parameters += [_release(preset), _ANCHOR_SHOWS, *_ANCHORED]
    if any({"joint", "lookahead"}.intersection(name.split("+")) for name in preset.strategies):
        parameters += _SEEN_AT_ONCE
    if preset.dit.vace_layers:
        parameters.append(_VACE_STRENGTH)
    if preset.guidance > 1:
        help_text = "How closely to follow the prompt"
        parameters.append(Parameter("guidance", "float", preset.guidance, help_text, low=1.0, high=20.0))
    else:
        parameters.append(_NEGATIVE_STRENGTH)
    if preset.samplers:
        help_text = "How the steps are taken: unipc is the model's own way, euler the plain one, a little less exact"
        parameters.append(Parameter("sampler", "choice", preset.samplers[0], help_text, choices=preset.samplers))
    if has_tae:
        parameters.append(_DECODER)
    parameters.append(_TILED)
    return parameters
