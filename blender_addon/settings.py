"""What the user sets for each scene, saved with it: what to make, never where or by which program."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import bpy

from . import runtime, sequencer
from .record import AUTO, MAX_STEP

if TYPE_CHECKING:
    from .pump import Pump
    from .record import Record, Value
    from .sfwire.messages import EngineInfo, Parameter

MAX_PROMPT_CHARS = 4000
_MAX_KEY_BYTES = 63
"""Blender's limit for the name of a custom property."""


def _engine_items(settings: InbetweenSettings, context: bpy.types.Context) -> list[tuple[str, str, str]]:
    global _items
    pump = runtime.running_pump()
    welcome = pump.welcome if pump else None
    engines = list(welcome.engines) if welcome else []
    items = [(AUTO, "Automatic", "The server chooses for each gap what can make it there, and says why")]
    items += [(e.id, e.title if e.available else f"{e.title} (not installed)", e.summary) for e in engines]
    if settings.engine_id not in [item[0] for item in items]:
        items.append((settings.engine_id, settings.engine_id, "The server does not offer this engine"))
    if items != _items:
        _items = items
    return _items


_items: list[tuple[str, str, str]] = []
"""Blender keeps no reference to the texts of a menu: somebody has to."""


def _get_engine(settings: InbetweenSettings) -> int:
    return [item[0] for item in _engine_items(settings, bpy.context)].index(settings.engine_id)


def _set_engine(settings: InbetweenSettings, index: int) -> None:
    settings.engine_id = _engine_items(settings, bpy.context)[index][0]


class InbetweenParameters(bpy.types.PropertyGroup):
    """Values of engines' parameters, as custom properties named `engine.parameter`."""


class InbetweenSettings(bpy.types.PropertyGroup):
    prompt: bpy.props.StringProperty(
        name="Prompt", description="What happens between the two pictures", maxlen=MAX_PROMPT_CHARS
    )
    negative_prompt: bpy.props.StringProperty(
        name="Avoid", description="What must not be seen in the frames", maxlen=MAX_PROMPT_CHARS
    )
    engine_id: bpy.props.StringProperty(default=AUTO, maxlen=64, options={"HIDDEN"})
    engine: bpy.props.EnumProperty(
        name="Engine",
        description="What makes the frames",
        items=_engine_items,
        get=_get_engine,
        set=_set_engine,
    )
    scale: bpy.props.IntProperty(
        name="Size",
        description="Size of the frames that are made, in percent of the scene's; an engine may need it smaller",
        default=100,
        min=10,
        max=100,
        subtype="PERCENTAGE",
    )
    step: bpy.props.IntProperty(
        name="Frames per Picture",
        description="How many frames each picture that is made stands: 2 is on twos, and costs half as much",
        default=1,
        min=1,
        max=MAX_STEP,
    )
    seed: bpy.props.IntProperty(name="Seed", description="The same seed and settings give the same frames again", min=0)
    new_seed: bpy.props.BoolProperty(
        name="New Seed Each Time", description="Choose another seed by chance for every fill", default=True
    )
    motion: bpy.props.BoolProperty(
        name="Motion Goes On",
        description="Where the neighbour is a movie, an image sequence or a scene, give the engine some of its frames "
        "too, so that what moves there moves on",
        default=True,
    )
    draft_first: bpy.props.BoolProperty(
        name="Draft First",
        description="Fill the gap with a draft in seconds, each picture of which stays until the one that it stands in "
        "for has come",
        default=True,
    )
    parameters: bpy.props.PointerProperty(type=InbetweenParameters)


def of(scene: bpy.types.Scene) -> InbetweenSettings:
    return scene.inbetween


def adopt(scene: bpy.types.Scene, record: Record, engine: EngineInfo | None) -> None:
    """Set what made a strip; an engine's own parameters only where the server knows the engine."""
    chosen = of(scene)
    chosen.prompt, chosen.negative_prompt = record.prompt[:MAX_PROMPT_CHARS], record.negative_prompt[:MAX_PROMPT_CHARS]
    chosen.engine_id, chosen.step, chosen.motion = record.asked, record.step, bool(record.motion)
    chosen.seed, chosen.new_seed = min(record.seed, 2**31 - 1), False
    for parameter in _offered(engine) if engine is not None else ():
        if parameter.name in record.params or record.auto:
            value = record.params.get(parameter.name, parameter.default)
            stored = parameter.choices.index(value) if value in parameter.choices else value
            if _value(stored, parameter) is not None:
                chosen.parameters[key(engine, parameter)] = stored


def key(engine: EngineInfo, parameter: Parameter) -> str:
    return f"{engine.id}.{parameter.name}"


def follow(pump: Pump) -> None:
    """Offer the edited scene what the server has said of its engine."""
    scene = sequencer.edited_scene(bpy.context)
    engine = pump.engine(of(scene).engine_id) if scene is not None else None
    if scene is not None and engine is not None:
        offer_parameters(scene, engine)


def offer_parameters(scene: bpy.types.Scene, engine: EngineInfo) -> None:
    """Give the scene a value for every parameter of the engine that has none yet, or one of another kind."""
    values = of(scene).parameters
    for parameter in _offered(engine):
        name = key(engine, parameter)
        if name not in values or _value(values[name], parameter) is None:
            _offer(values, name, parameter)


def _offered(engine: EngineInfo) -> Iterable[Parameter]:
    return (p for p in engine.parameters if len(key(engine, p).encode()) <= _MAX_KEY_BYTES)


def _offer(values: InbetweenParameters, name: str, parameter: Parameter) -> None:
    if name in values:
        del values[name]
    if parameter.kind == "choice":
        values[name] = parameter.choices.index(parameter.default)
        items = [(choice, choice.capitalize(), "") for choice in parameter.choices]
        values.id_properties_ui(name).update(items=items, description=parameter.help)
        return
    values[name] = float(parameter.default) if parameter.kind == "float" else parameter.default
    hints: dict[str, object] = {"description": parameter.help, "default": values[name]}
    if parameter.kind != "bool":
        kind = float if parameter.kind == "float" else int
        if parameter.low is not None:
            hints |= {"min": kind(parameter.low), "soft_min": kind(parameter.low)}
        if parameter.high is not None:
            hints |= {"max": kind(parameter.high), "soft_max": kind(parameter.high)}
    values.id_properties_ui(name).update(**hints)


def _value(stored: object, parameter: Parameter) -> Value | None:
    """A stored value in the parameter's range, None where it is of another kind: a .blend may hold anything."""
    if parameter.kind == "choice":
        fits = type(stored) is int and 0 <= stored < len(parameter.choices)
        return parameter.choices[stored] if fits else None
    if parameter.kind == "bool":
        return stored if type(stored) is bool else None
    if type(stored) not in (int, float) or (parameter.kind == "int" and type(stored) is not int):
        return None
    low = float("-inf") if parameter.low is None else parameter.low
    high = float("inf") if parameter.high is None else parameter.high
    inside = min(max(stored, low), high)
    return float(inside) if parameter.kind == "float" else int(inside)


def chosen_parameters(scene: bpy.types.Scene, engine: EngineInfo) -> dict[str, Value]:
    """What the scene sets for the engine. What is missing or of the wrong kind is left to the engine's default; where
    the server chooses, so is what stands at its default, since the server may need it otherwise."""
    stored = of(scene).parameters
    chosen = {p.name: _value(stored[key(engine, p)], p) for p in _offered(engine) if key(engine, p) in stored}
    left = {p.name: p.default for p in engine.parameters} if of(scene).engine_id == AUTO else {}
    return {name: value for name, value in chosen.items() if value is not None and value != left.get(name)}
