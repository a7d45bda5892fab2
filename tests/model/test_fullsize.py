"""The published sizes without a published byte: full-size networks on the meta device, name by name, shape by shape."""

from __future__ import annotations

import json
import math
import os
from functools import cache
from pathlib import Path

import attrs
import pytest

from sfserver.model.config import WAN_1_3B, WAN_1_3B_VACE
from sfserver.model.tae import TaeConfig
from sfserver.model.text import TextConfig
from sfserver.model.vae import VaeConfig
from sfserver.weights.dialects import RENAME
from sfserver.weights.identify import compared, roles_in, sizes_of
from sfserver.weights.loading import expected_shapes

GOLDEN = Path(os.environ.get("SF_GOLDEN", Path(__file__).parents[3] / "shared" / "reference" / "golden"))
KEYS_FILE = GOLDEN.parent / "keys_fullsize.json"

NETWORKS = {
    "dit": ("wan2.1_t2v_1.3B_dit", WAN_1_3B),
    "vace": ("wan2.1_vace_1.3B_extra", WAN_1_3B_VACE),
    "vae": ("Wan2.1_VAE.pth", VaeConfig()),
    "text": ("models_t5_umt5-xxl-enc-bf16.pth", TextConfig()),
    "tae": ("taew2_1", TaeConfig()),
}
PARAMETERS = {"dit": 1_418_996_800, "vae": 126.9e6, "text": 5.68e9, "tae": 11.3e6, "vace": 735e6}
"""As the models' authors count them, to the digits they give."""


@cache
def published_shapes(role: str) -> dict[str, tuple[int, ...]]:
    """A published file's tensors under our names."""
    if not KEYS_FILE.is_file():
        pytest.skip(f"{KEYS_FILE} does not exist; SF_GOLDEN names another folder beside it")
    stem = NETWORKS[role][0]
    (keys,) = (keys for name, keys in json.loads(KEYS_FILE.read_text("utf-8")).items() if name.startswith(stem))
    return {RENAME[role](name): tuple(shape) for name, shape in keys.items()}


@cache
def our_shapes(role: str) -> dict[str, tuple[int, ...]]:
    """The tensors of our network at that size."""
    return dict(expected_shapes(role, attrs.asdict(NETWORKS[role][1])))


@pytest.mark.parametrize("role", NETWORKS)
def test_full_size_network_has_the_published_tensors(role: str) -> None:
    expected = our_shapes(role)
    assert compared(role, published_shapes(role), expected) is None
    assert sum(map(math.prod, expected.values())) == pytest.approx(PARAMETERS[role], rel=0.005)


@pytest.mark.parametrize("role", NETWORKS)
def test_sizes_are_told_from_the_published_tensors_alone(role: str) -> None:
    shapes = published_shapes(role)
    assert role in roles_in(shapes)
    config = sizes_of(role, shapes, {}, "file.safetensors")
    built = type(NETWORKS[role][1])(**{name: tuple(v) if isinstance(v, list) else v for name, v in config.items()})
    assert built == NETWORKS[role][1]


@pytest.mark.parametrize("role", NETWORKS)
def test_one_tensor_less_is_noticed(role: str) -> None:
    shapes = dict(published_shapes(role))
    name, _ = shapes.popitem()
    misfit = compared(role, shapes, our_shapes(role))
    assert misfit is not None
    assert name in misfit
