"""A safetensors file written as it comes: one piece of one tensor in memory, whatever the file's size.

The library's own writer wants all tensors at once, which for the text encoder are 11 GB. The format is simple: the
length of a header in JSON that says where each tensor lies, the header, and their bytes in order and without gaps.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from .files import Shapes, WeightsError

PIECE_ELEMENTS = 32 * 1024**2
"""Of one tensor at a time: with copies in float32 and what looks for infinities, about half a gigabyte."""
_NAMES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16", torch.float8_e4m3fn: "F8_E4M3",
          torch.int8: "I8"}  # fmt: skip


def pieces_of(value: Tensor) -> Iterator[Tensor]:
    """A tensor in runs of its first dimension, each of no more than PIECE_ELEMENTS, or one row."""
    if value.ndim == 0:
        yield value
        return
    row = math.prod(value.shape[1:])
    yield from value.split(max(1, PIECE_ELEMENTS // max(1, row)))


def write_safetensors(
    path: Path,
    shapes: Shapes,
    dtypes: Mapping[str, torch.dtype],
    pieces: Callable[[str], Iterable[Tensor]],
) -> str:
    """Write the tensors of `shapes`, each from its pieces in turn; returns the file's SHA-256.

    The wider types lie first, so that each tensor is aligned. Raises WeightsError where the disk cannot hold it.
    """
    order = sorted(shapes, key=lambda name: (-dtypes[name].itemsize, name))
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name in order:
        start, end = end, end + math.prod(shapes[name]) * dtypes[name].itemsize
        header[name] = {"dtype": _NAMES[dtypes[name]], "shape": list(shapes[name]), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    digest = hashlib.sha256()
    try:
        with path.open("wb") as file:
            for part in _parts(text, order, dtypes, pieces):
                file.write(part)
                digest.update(part)
    except OSError as error:
        raise WeightsError(f"{path}: cannot be written ({error.strerror}); is the disk full?") from None
    return digest.hexdigest()


def _parts(
    header: bytes, order: Iterable[str], dtypes: Mapping[str, torch.dtype], pieces: Callable[[str], Iterable[Tensor]]
) -> Iterator[bytes | memoryview]:
    yield len(header).to_bytes(8, "little")
    yield header
    for name in order:
        for piece in pieces(name):
            assert piece.dtype == dtypes[name], name
            yield piece.contiguous().flatten().view(torch.uint8).numpy().data
