"""Headers, sizes and hashes of weight files, read without torch and without trusting them."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sfwire.regular import open_regular, read_regular

from ..errors import UserError, quoted

MAX_HEADER_BYTES = 100_000_000
"""The safetensors library's own limit."""
_READ_BYTES = 16 * 1024 * 1024
_ELEMENT_BITS = {
    "F64": 64, "F32": 32, "F16": 16, "BF16": 16, "F8_E4M3": 8, "F8_E5M2": 8,
    "I64": 64, "I32": 32, "I16": 16, "I8": 8, "U64": 64, "U32": 32, "U16": 16, "U8": 8, "BOOL": 8,
}  # fmt: skip


MAX_JSON_BYTES = 16 * 1024 * 1024
"""An index of shards names each tensor once: a few thousand lines."""
_LARGEST = 2**63 - 1
"""Of a whole number: every size and offset that a file can have."""


class WeightsError(UserError):
    """Weights that cannot be used: one sentence that names the file, what is wrong with it and the remedy."""


Shapes = Mapping[str, tuple[int, ...]]


def read_json(path: Path) -> Any:
    """A stranger's JSON: a plain file of a sane size. Raises OSError, and ValueError as `parsed_json` does."""
    return parsed_json(read_regular(path, MAX_JSON_BYTES))


def parsed_json(text: bytes) -> Any:
    """Raises ValueError for what is no JSON, nests too deeply, or holds a number that is none or has over 64 bits."""
    try:
        return json.loads(text, parse_int=_int, parse_float=_float, parse_constant=_float)
    except RecursionError:
        raise ValueError("nests too deeply") from None


def _int(digits: str) -> int:
    if len(digits) > 20 or not -_LARGEST <= int(digits) <= _LARGEST:
        raise ValueError(f"holds {quoted(digits)}, a number of over 64 bits")
    return int(digits)


def _float(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError(f"holds {quoted(digits)}, which is no finite number")
    return number


def safetensors_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a safetensors file, its layout checked against its length. Raises WeightsError."""
    header, data_bytes = _header(path)
    shapes: dict[str, tuple[int, ...]] = {}
    end = 0
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        try:
            shape, (start, stop) = tuple(map(int, entry["shape"])), map(int, entry["data_offsets"])
            bits = _ELEMENT_BITS[entry["dtype"]]
        except (KeyError, TypeError, ValueError):
            what = f"tensor {quoted(name)} is described in a way we cannot read ({quoted(entry)})"
            raise WeightsError(f"{path}: {what}; download it again") from None
        if min(shape, default=0) < 0 or math.prod(shape) * bits != (stop - start) * 8 or start < 0:
            what = f"tensor {quoted(name)} is {quoted(shape)} but has {stop - start} bytes"
            raise WeightsError(f"{path}: {what}; the file is damaged, download it again")
        shapes[name] = shape
        end = max(end, stop)
    if end != data_bytes:
        missing = f"{end - data_bytes} bytes are missing" if end > data_bytes else f"{data_bytes - end} are too many"
        raise WeightsError(f"{path}: {missing} at its end; download it again")
    return shapes


def _header(path: Path) -> tuple[dict[str, dict], int]:
    """The header and how many bytes come behind it."""
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            start = file.read(8)
            length = int.from_bytes(start, "little")
            if len(start) == 8 and 2 <= length <= min(MAX_HEADER_BYTES, size - 8):
                header = parsed_json(file.read(length))
                if isinstance(header, dict):
                    return header, size - 8 - length
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror}); check the path") from None
    except ValueError:
        pass
    raise WeightsError(f"{path}: {_not_safetensors(start, length, size)}")


def _not_safetensors(start: bytes, length: int, size: int) -> str:
    if length <= MAX_HEADER_BYTES:  # begins as one does
        return f"is cut off or damaged ({size} bytes); download it again"
    if start.startswith(b"version "):
        return "is a Git LFS pointer and not the file itself; fetch it with git lfs pull"
    if start.startswith((b"PK", b"\x80")):
        return "is a torch checkpoint under a safetensors name; rename it to .pt and convert that"
    if start.lstrip().startswith(b"<"):
        return "is a web page and not weights; download it again"
    return "is no safetensors file; download it again"


def sha256_of(path: Path) -> str:
    """Hex digest of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_READ_BYTES):
            digest.update(piece)
    return digest.hexdigest()
