"""One bad folder below the models folder is one engine less, with its reason, and keeps no server from starting."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import attrs
import pytest
from sfwire import limits as L
from sfwire.codec import encode
from sfwire.messages import EngineInfo, Welcome

from sfserver.config import ServerConfig, load_config
from sfserver.engine import draft, presets, table
from sfserver.engine.stand_in import described, stand_in, within_one_message
from sfserver.weights.files import WeightsError, parsed_json, safetensors_shapes
from sfserver.weights.sources import shards_of

DIT = {"dim": 96, "ffn_dim": 160, "layers": 3, "heads": 3}
COMPONENT = {"file": "dit.safetensors", "bytes": 1, "sha256": "0", "dialect": "d", "source": "s", "dtype": "bfloat16"}


def manifest(**sizes: object) -> str:
    return json.dumps({"components": {"dit": COMPONENT | {"config": DIT | sizes}}})


BAD: dict[str, Callable[[Path], object]] = {
    "a size beyond 64 bits": lambda p: p.write_text(manifest(layers=10**30)),
    "a size that is almost there": lambda p: p.write_text(manifest(ffn_dim=2**62)),
    "a number of 5,000 digits": lambda p: p.write_text(manifest().replace("160", "9" * 5000)),
    "a number that is infinite": lambda p: p.write_text(manifest().replace("160", "1e999")),
    "300,000 nested brackets": lambda p: p.write_text("[" * 300_000),
    "20 MB": lambda p: p.write_bytes(b" " * 20_000_000),
    "a pipe": os.mkfifo,
    "an endless device": lambda p: p.symlink_to("/dev/zero"),
    "a folder": lambda p: p.mkdir(),
    "no text": lambda p: p.write_bytes(b"\xff\xfe\x00"),
}


@pytest.fixture
def config(tmp_path: Path) -> ServerConfig:
    return load_config({"models_dir": str(tmp_path / "models")}, environment={})


def told(infos: tuple[EngineInfo, ...]) -> dict[str, EngineInfo]:
    """By id, once they have been through a server's greeting."""
    encode(Welcome(L.PROTOCOL, "worker", "a test", infos, "draft", "a test"))
    return {info.id: info for info in infos}


@pytest.mark.skipif(sys.platform == "win32", reason="pipes and devices")
@pytest.mark.timeout(120)
@pytest.mark.parametrize("make", BAD.values(), ids=BAD)
def test_a_bad_folder_is_one_engine_less_with_its_reason(config: ServerConfig, make: Callable[[Path], object]) -> None:
    folder = config.models_dir / "bad"
    folder.mkdir(parents=True)
    make(folder / "model.json")
    engines = told(table.describe_all(config))
    assert not engines["bad"].available
    assert engines["bad"].missing
    assert all(len(reason) < 900 for reason in engines["bad"].missing)
    assert engines["draft"].available
    assert table.choose(engines.values(), attrs.evolve(config, device="cpu"))[0] == "draft"


def test_a_bad_folder_that_presets_share_leaves_them_incomplete_and_listed(config: ServerConfig) -> None:
    shared = {Path(part.path).parts[0] for preset in presets.PRESETS for part in preset.parts}
    for name in shared:
        (config.models_dir / name).mkdir(parents=True)
        (config.models_dir / name / "model.json").write_text("[" * 300_000)
    engines = told(table.describe_all(config))
    assert {p.id for p in presets.PRESETS} <= engines.keys()


@pytest.mark.parametrize("error", [ZeroDivisionError(), OverflowError("x" * 9000), RecursionError("\x7f")], ids=repr)
def test_whatever_keeps_an_engine_from_being_described_it_is_named(
    config: ServerConfig, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(_: ServerConfig) -> EngineInfo:
        raise error

    monkeypatch.setattr(draft, "describe", fail)
    (reason,) = told(table.describe_all(config))["draft"].missing
    assert type(error).__name__ in reason


def test_what_cannot_travel_is_not_said() -> None:
    huge = stand_in("e", "E", "")
    object.__setattr__(huge, "memory_bytes", 2**70)
    assert not described("e", "E", lambda: huge).memory_bytes


def test_more_engines_than_a_greeting_holds_push_out_none_that_is_needed() -> None:
    infos = [stand_in(f"e{i}", "E", "é" * 400) for i in range(100)]
    kept = within_one_message(infos, 3)
    assert 3 < len(kept) <= L.MAX_ENGINES
    told(kept)


@pytest.mark.parametrize("text", [b"1e999", b"NaN", b"-Infinity", b"9" * 5000, str(2**63).encode(), b"[" * 300_000])
def test_numbers_that_are_none_and_endless_nesting_are_no_json(text: bytes) -> None:
    with pytest.raises(ValueError, match=r"number|deeply"):
        parsed_json(text)
    assert parsed_json(b'{"a": [1, -2.5e3, null, true]}') == {"a": [1, -2500.0, None, True]}


def test_a_header_of_absurd_numbers_is_one_short_sentence(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    for text in (
        '{"a":{"dtype":"F32","shape":[1e999],"data_offsets":[0,4]}}',
        '{"a":' + '"x' * 1 + "y" * 5_000_000 + '"}',
    ):
        path.write_bytes(len(text).to_bytes(8, "little") + text.encode())
        with pytest.raises(WeightsError) as refused:
            safetensors_shapes(path)
        assert len(str(refused.value)) < 500 + len(str(path))


def test_a_deep_index_of_shards_is_refused(tmp_path: Path) -> None:
    index = tmp_path / "m.safetensors.index.json"
    index.write_text("[" * 300_000)
    with pytest.raises(WeightsError, match="is not an index"):
        shards_of(index)
