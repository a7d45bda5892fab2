"""The only place where bytes become objects. Whatever comes in, it raises BadMessage and nothing else.

A message is one msgpack map with a `type`, then the buffers, each as a frame of its own: no picture passes through
msgpack. Sizes and counts are checked before anything is decoded, types without coercion, values by the messages' own
validators (PROTOCOL.md, "Frames").
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import Any, Literal, NoReturn, TypeVar, cast, get_args, get_origin

import attrs
import msgpack  # pyright: ignore[reportMissingTypeStubs]
from cattrs import BaseValidationError, Converter
from cattrs.errors import AttributeValidationNote, ForbiddenExtraKeysError, IterableValidationNote
from cattrs.gen import make_dict_structure_fn, make_dict_unstructure_fn, override

from . import limits as L
from . import messages as m
from .errors import BadMessage, ErrorCode

Buffer = bytes | bytearray | memoryview
"""A picture as it travels. Received ones may point into ZeroMQ's own memory and are read-only."""

_TYPE = "type"
_pack = cast("Callable[[object], bytes]", msgpack.packb)  # pyright: ignore[reportUnknownMemberType]
_unpack_any = cast("Callable[..., object]", msgpack.unpackb)  # pyright: ignore[reportUnknownMemberType]
_T = TypeVar("_T")


def encode(message: m.Message, buffers: Sequence[Buffer] = ()) -> list[Buffer]:
    """The parts of `message`: the header, then the buffers untouched."""
    body: dict[str, Any] = {_TYPE: _NAMES[type(message)], **_CONVERTER.unstructure(message)}
    header = _pack(body)
    if len(header) > L.MAX_HEADER_BYTES:
        raise BadMessage(f"header of {len(header)} bytes, at most {L.MAX_HEADER_BYTES}")
    return [header, *buffers]


def decode_to_server(parts: Sequence[Buffer]) -> tuple[m.ToServer, list[Buffer]]:
    """What a client sent. Raises BadMessage."""
    return cast("tuple[m.ToServer, list[Buffer]]", _decode(parts, _TO_SERVER))


def decode_to_client(parts: Sequence[Buffer]) -> tuple[m.ToClient, list[Buffer]]:
    """What the server sent. Raises BadMessage."""
    return cast("tuple[m.ToClient, list[Buffer]]", _decode(parts, _TO_CLIENT))


def _decode(parts: Sequence[Buffer], known: Mapping[str, type]) -> tuple[m.Message, list[Buffer]]:
    if not 1 <= len(parts) <= L.MAX_PARTS:
        raise BadMessage(f"{len(parts)} frames, allowed are 1 to {L.MAX_PARTS}")
    header, *buffers = parts
    if len(header) > L.MAX_HEADER_BYTES:
        raise BadMessage(f"header of {len(header)} bytes, at most {L.MAX_HEADER_BYTES}")
    body = _unpack(header, L.MAX_CONTAINERS_TO_SERVER if known is _TO_SERVER else L.MAX_CONTAINERS_TO_CLIENT)
    name = body.pop(_TYPE, None)
    if not isinstance(name, str) or name not in known:
        raise BadMessage(f"unknown message; known are {', '.join(known)}", _TYPE, _readable_id(body))
    try:
        message = cast("m.Message", _structure(body, known[name]))
    except BaseValidationError as error:
        path, complaint = _blame(error)
        raise BadMessage(m.fit(complaint), m.fit(path, L.MAX_NAME_CHARS), _readable_id(body)) from None
    _check_buffers(message, buffers)
    return message, buffers


def _unpack(header: Buffer, most_containers: int) -> dict[str, Any]:
    counted = _Counted(most_containers)
    try:
        body = _unpack_any(
            header,
            object_pairs_hook=counted.map,
            list_hook=counted.array,
            strict_map_key=True,
            max_array_len=L.MAX_ARRAY_LENGTH,
            max_map_len=L.MAX_MAP_LENGTH,
            max_ext_len=0,
            max_bin_len=0,
        )
    except (ValueError, RecursionError) as error:  # msgpack's own errors, bad UTF-8 and doubles are all ValueErrors
        raise BadMessage(f"header is not msgpack ({str(error)[:200] or type(error).__name__})") from None
    if not isinstance(body, dict):
        raise BadMessage(f"header is a {type(body).__name__}, not a map")
    return cast("dict[str, Any]", body)


class _Counted:
    """Ends the reading of a header that holds too many arrays and maps, while it is being read."""

    def __init__(self, most: int) -> None:
        self._left = most

    def array(self, items: list[Any]) -> list[Any]:
        self._count()
        return items

    def map(self, pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
        self._count()
        result = dict(pairs)
        if len(result) != len(pairs):
            raise ValueError("a key stands twice in one map")
        return result

    def _count(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise ValueError("too many arrays and maps")


def _readable_id(body: Mapping[str, Any]) -> str | None:
    """The request's id if it is one, so that the refusal can be matched to the request."""
    value = body.get("id")
    if not isinstance(value, str):
        return None
    try:
        m.Cancel(id=value)
    except m.Refused:
        return None
    return value


def _check_buffers(message: m.Message, buffers: Sequence[Buffer]) -> None:
    """The buffers are as many and as long as the header says. Raises BadMessage."""
    if isinstance(message, m.Generate):
        _check_keyframe_buffers(message, buffers)
    elif isinstance(message, m.Frame):
        if len(buffers) != 1:
            raise BadMessage(f"{len(buffers)} buffers, a frame has 1", "buffers", message.id)
        expected = picture_bytes(message)
        if message.encoding == "raw" and len(buffers[0]) != expected:
            raise BadMessage(_wrong_length(buffers[0], message), "buffers[0]", message.id)
        if message.encoding == "png" and len(buffers[0]) > expected + L.PNG_SLACK_BYTES:
            raise BadMessage(f"PNG of {len(buffers[0])} bytes, larger than the picture", "buffers[0]", message.id)
    elif buffers:
        raise BadMessage(f"{len(buffers)} buffers, a {_NAMES[type(message)]} has none", "buffers")


def _check_keyframe_buffers(message: m.Generate, buffers: Sequence[Buffer]) -> None:
    used = {k.buffer for k in message.keyframes}
    if used != set(range(len(buffers))):
        raise BadMessage(f"{len(buffers)} buffers, the keyframes use {sorted(used)}", "buffers", message.id)
    total = sum(len(buffer) for buffer in buffers)
    if total > L.MAX_REQUEST_BYTES:
        raise BadMessage(f"{total} bytes of pictures, at most {L.MAX_REQUEST_BYTES} in all", "buffers", message.id)
    for i, k in enumerate(message.keyframes):
        if k.width * k.height > L.MAX_PIXELS:
            raise BadMessage(
                f"{k.width}x{k.height} pixels, at most {L.MAX_PIXELS} in all", f"keyframes[{i}]", message.id
            )
        if picture_bytes(k) > L.MAX_BUFFER_BYTES:
            smaller = f"at most {L.MAX_BUFFER_BYTES} bytes; send it with a depth of 16"
            raise BadMessage(f"{_called(k)} has {picture_bytes(k)}, {smaller}", f"keyframes[{i}]", message.id)
        if len(buffers[k.buffer]) != picture_bytes(k):
            raise BadMessage(_wrong_length(buffers[k.buffer], k), f"keyframes[{i}].buffer", message.id)


def picture_bytes(described: m.Keyframe | m.Frame) -> int:
    """Length of the raw picture that a message describes."""
    return described.width * described.height * described.channels * (described.depth // 8)


def _wrong_length(buffer: Buffer, described: m.Keyframe | m.Frame) -> str:
    return f"{len(buffer)} bytes, {_called(described)} has {picture_bytes(described)}"


def _called(described: m.Keyframe | m.Frame) -> str:
    return f"{described.width}x{described.height} {'RGBA'[: described.channels]}{described.depth}"


# Strict structuring: a value is of its declared type or it is refused ------------------------------------------------


def _refuse(value: object, wanted: str) -> NoReturn:
    raise TypeError(f"is a {type(value).__name__}, not {wanted}")


def _strictly(kind: type[_T], wanted: str) -> Callable[[Any, Any], _T]:
    def structure(value: Any, _: Any) -> _T:
        return value if type(value) is kind else _refuse(value, wanted)

    return structure


def _number(value: Any, _: Any) -> float:
    """An int is a number too: other languages' msgpack writes 1.0 as 1."""
    return float(value) if type(value) in (int, float) else _refuse(value, "a number")


def _value(value: Any, _: Any) -> m.Value:
    return value if type(value) in (bool, int, float, str) else _refuse(value, "true, false, a number or text")


def _literal(value: Any, kind: Any) -> Any:
    choices = get_args(kind)
    if type(value) is not str or value not in choices:
        raise ValueError(f"{str(value)[:80]!r} is none of {', '.join(choices)}")
    return value


def _enum(value: Any, kind: type[Enum]) -> Enum:
    choices = {str(e.value): e for e in kind}
    if type(value) is not str or value not in choices:
        raise ValueError(f"{str(value)[:80]!r} is none of {', '.join(choices)}")
    return choices[value]


def _strict_converter() -> Converter:
    converter = Converter(forbid_extra_keys=True, detailed_validation=True)
    converter.register_structure_hook(int, _strictly(int, "a whole number"))
    converter.register_structure_hook(str, _strictly(str, "text"))
    converter.register_structure_hook(bool, _strictly(bool, "true or false"))
    converter.register_structure_hook(float, _number)
    converter.register_structure_hook_func(lambda kind: kind == m.Value, _value)
    converter.register_structure_hook_func(lambda kind: get_origin(kind) is Literal, _literal)
    converter.register_structure_hook(ErrorCode, _enum)  # by name: being a str, it would be taken for one
    converter.register_structure_hook_factory(lambda kind: get_origin(kind) is tuple, _tuple_factory)
    converter.register_structure_hook_factory(lambda kind: get_origin(kind) is Mapping, _mapping_factory)
    converter.register_structure_hook_factory(lambda kind: isinstance(kind, type) and attrs.has(kind), _class_factory)
    return converter


def _tuple_factory(kind: Any, converter: Converter) -> Callable[[Any, Any], Any]:
    element = get_args(kind)[0]

    def structure(value: Any, _: Any) -> tuple[Any, ...]:
        items = cast("list[Any]", value if type(value) is list else _refuse(value, "an array"))
        return tuple(_noted(converter, item, element, IterableValidationNote, i) for i, item in enumerate(items))

    return structure


def _mapping_factory(kind: Any, converter: Converter) -> Callable[[Any, Any], Any]:
    _, element = get_args(kind)

    def structure(value: Any, _: Any) -> dict[str, Any]:
        items = cast("dict[Any, Any]", value if type(value) is dict else _refuse(value, "a map"))
        for key in items:
            if type(key) is not str:
                _refuse(key, "text, as the keys of this map are")
        return {key: _noted(converter, item, element, IterableValidationNote, key) for key, item in items.items()}

    return structure


def _noted(converter: Converter, item: Any, kind: Any, note: type[IterableValidationNote], index: Any) -> Any:
    """Structure one element; on failure leave the note from which `_blame` reads the path."""
    try:
        return converter.structure(item, kind)
    except Exception as error:  # annotated and raised again: the boundary is _decode
        error.add_note(note("", index, kind))
        raise


def _class_factory(kind: type, converter: Converter) -> Callable[[Any, Any], Any]:
    structure_fields = cast(
        "Callable[[object, type], object]",
        make_dict_structure_fn(kind, converter, _cattrs_forbid_extra_keys=True, _cattrs_detailed_validation=True),
    )

    def structure(value: object, _: Any) -> object:
        return structure_fields(cast("object", value), kind) if type(value) is dict else _refuse(value, "a map")

    return structure


def _blame(error: BaseException, path: str = "") -> tuple[str, str]:
    """The path of the first value that is wrong, as in `keyframes[2].at`, and what is wrong with it."""
    notes = cast("list[object]", error.__dict__.get("__notes__", []))
    for note in reversed(notes):  # the innermost was added first
        if isinstance(note, IterableValidationNote):
            path += f"[{note.index}]"
        elif isinstance(note, AttributeValidationNote):
            path = f"{path}.{note.name}" if path else note.name
    if isinstance(error, BaseValidationError):
        return _blame(error.exceptions[0], path)
    if isinstance(error, m.Refused):
        return (f"{path}.{error.name}" if path else error.name), error.message
    if isinstance(error, ForbiddenExtraKeysError):
        return path, f"has unknown fields: {', '.join(sorted(str(f)[:40] for f in error.extra_fields)[:5])}"
    if isinstance(error, KeyError):
        return path, "is missing"
    return path, str(error)


def _without_what_protocol_1_has_not(converter: Converter) -> Converter:
    """Fields that it does not know are left out where they say nothing new, so that it can read the message."""
    make = cast("Callable[..., Callable[[Any], dict[str, Any]]]", make_dict_unstructure_fn)
    later = {m.Keyframe: ("channels", "depth"), m.Frame: ("channels", "depth")}
    later |= {m.WorkerStatus: ("device",)}
    for kind, names in {**later, m.EngineInfo: ("max_channels", "max_depth")}.items():
        leave_out = {name: override(omit_if_default=True) for name in names}
        converter.register_unstructure_hook(kind, make(kind, converter, **leave_out))
    return converter


_NAMES: dict[type, str] = {kind: kind.__name__.lower() for kind in (*get_args(m.ToServer), *get_args(m.ToClient))}
_TO_SERVER: dict[str, type] = {_NAMES[kind]: kind for kind in get_args(m.ToServer)}
_TO_CLIENT: dict[str, type] = {_NAMES[kind]: kind for kind in get_args(m.ToClient)}
_CONVERTER = _without_what_protocol_1_has_not(_strict_converter())
_structure = cast("Callable[[object, type], object]", _CONVERTER.structure)
