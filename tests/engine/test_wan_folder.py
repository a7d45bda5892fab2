"""From files as they are published to frames: convert, describe, load, generate. All at toy size, nothing skipped."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
import torch
import toy
from published import write_official_repository
from sfwire.codec import encode
from sfwire.errors import ErrorCode, RequestError
from sfwire.messages import Welcome

from sfserver.config import ServerConfig
from sfserver.engine import table, wan, wan_load
from sfserver.engine.base import Engine
from sfserver.model.text import TextEncoder
from sfserver.weights.convert import Wish, convert

JOB = toy.job(9, (0, 8), params={"strategy": "anchor"})


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "my toy"
    convert(write_official_repository(tmp_path_factory.mktemp("hub") / "published"), folder, Wish(dtype=torch.float32))
    return folder


@pytest.fixture
def config(tmp_path: Path) -> ServerConfig:
    return ServerConfig(models_dir=tmp_path / "models", cache_dir=tmp_path / "cache", device="cpu")


def generate(engine: Engine) -> np.ndarray:
    return toy.pixels(toy.run(JOB, engine))  # pyright: ignore[reportArgumentType]


def test_a_folder_of_converted_weights_generates(converted: Path, config: ServerConfig) -> None:
    info = wan.describe_folder(converted, config)
    assert info.available, info.missing
    assert info.id == "my-toy"
    assert "vace_strength" in {p.name for p in info.parameters}
    engine = wan.load_folder(converted, config)
    assert generate(engine).shape == (7, toy.HEIGHT, toy.WIDTH, 3)


def test_a_repeated_prompt_needs_no_text_encoder(
    converted: Path, config: ServerConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = generate(wan.load_folder(converted, config))

    def refuse(*_: object) -> None:
        raise AssertionError("the text encoder was loaded")

    monkeypatch.setattr(wan_load.loading, "load_text_encoder", refuse)
    assert np.array_equal(generate(wan.load_folder(converted, config)), first)
    with pytest.raises(AssertionError, match="text encoder was loaded"):
        toy.run(attrs.evolve(JOB, prompt="something new"), wan.load_folder(converted, config))  # pyright: ignore


def test_the_text_encoder_is_bfloat16_even_where_the_engine_is_float32(
    converted: Path, config: ServerConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[torch.dtype] = []
    load = wan_load.loading.load_text_encoder

    def noted(*given: Any) -> TextEncoder:
        encoder = load(*given)
        loaded.extend(weight.dtype for weight in encoder.stack.parameters())
        return encoder

    monkeypatch.setattr(wan_load.loading, "load_text_encoder", noted)
    generate(wan.load_folder(converted, attrs.evolve(config, precision="fp32")))
    assert set(loaded) == {torch.bfloat16}


@pytest.mark.parametrize("field", ["prompt", "negative_prompt"])
def test_a_prompt_of_too_many_tokens_is_refused_by_its_field_and_the_engine_lives_on(
    converted: Path, config: ServerConfig, field: str
) -> None:
    engine = wan.load_folder(converted, config)
    with pytest.raises(RequestError, match=r"tokens: the model reads 16") as caught:
        toy.run(attrs.evolve(JOB, **{field: "a cat walks " * 300}), engine)  # pyright: ignore[reportArgumentType]
    assert (caught.value.code, caught.value.field) == (ErrorCode.BAD_VALUE, field)
    assert generate(engine).shape[0] == 7


def test_a_text_encoder_that_has_gone_is_named(converted: Path, config: ServerConfig, tmp_path: Path) -> None:
    folder = tmp_path / "short-lived"
    shutil.copytree(converted, folder)
    engine = wan.load_folder(folder, config)
    (folder / "text.safetensors").unlink()
    with pytest.raises(RequestError, match=r"text\.safetensors is not there") as caught:
        generate(engine)
    assert caught.value.code is ErrorCode.ENGINE_UNAVAILABLE


def test_bfloat16_runs_and_stays_near_float32(converted: Path, config: ServerConfig) -> None:
    exact = generate(wan.load_folder(converted, config)).astype(int)
    rounded = generate(wan.load_folder(converted, attrs.evolve(config, precision="bf16")))
    assert np.abs(rounded - exact).mean() < 2, "0.9 of 255 was measured"


def test_a_preset_is_loaded_from_the_parts_that_presets_share(converted: Path, config: ServerConfig) -> None:
    for home in ("self-forcing", "wan-vace", "wan2.1"):
        (config.models_dir / home).parent.mkdir(exist_ok=True)
        (config.models_dir / home).symlink_to(converted)
    infos = {info.id: info for info in wan.describe(config)}
    assert infos["self-forcing-vace"].available
    assert not infos["longlive"].available
    with pytest.raises(RequestError, match=r"1\.3B is needed") as caught:
        wan.load("self-forcing-vace", config)
    assert caught.value.code is ErrorCode.ENGINE_UNAVAILABLE


def test_a_folder_without_a_part_says_which(converted: Path, config: ServerConfig, tmp_path: Path) -> None:
    partial = tmp_path / "partial"
    partial.mkdir()
    for path in converted.iterdir():
        if path.name != "vae.safetensors":
            (partial / path.name).symlink_to(path)
    info = wan.describe_folder(partial, config)
    assert not info.available
    assert any("vae.safetensors is not there" in what for what in info.missing)
    with pytest.raises(RequestError, match=r"vae\.safetensors is not there"):
        wan.load_folder(partial, config)


def test_a_preset_without_vace_leaves_the_folder_s_branch_alone(
    converted: Path, config: ServerConfig, tmp_path: Path
) -> None:
    folder = copied_with(converted, tmp_path, preset="self-forcing")
    assert "vace_strength" not in {p.name for p in wan.describe_folder(folder, config).parameters}
    assert generate(wan.load_folder(folder, config)).shape[0] == 7


def test_sizes_that_cannot_be_are_refused(converted: Path, config: ServerConfig, tmp_path: Path) -> None:
    sizes = {"dim": 96, "ffn_dim": 160, "layers": 3, "heads": 7}
    folder = copied_with(converted, tmp_path, preset="self-forcing", sizes=sizes)
    with pytest.raises(RequestError, match="describes a transformer that cannot be") as caught:
        wan.describe_folder(folder, config)
    assert caught.value.code is ErrorCode.ENGINE_UNAVAILABLE


def copied_with(folder: Path, home: Path, preset: str, sizes: dict[str, int] | None = None) -> Path:
    """A copy of a model folder whose manifest names another preset, and perhaps other sizes of the transformer."""
    copy = Path(shutil.copytree(folder, home / "copy"))
    table = json.loads((copy / "model.json").read_text("utf-8"))
    table["preset"] = preset
    if sizes:
        table["components"]["dit"]["config"] = sizes
    (copy / "model.json").write_text(json.dumps(table), "utf-8")
    return copy


def test_a_folder_of_something_else_is_refused(config: ServerConfig, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="is no model folder") as caught:
        wan.describe_folder(tmp_path, config)
    assert caught.value.code is ErrorCode.ENGINE_UNAVAILABLE


ODD_NAMES = {
    "a bell": (b"my\x07model", "my-model"),
    "two lines": (b"my\nmodel", "my-model"),
    "nothing but spaces": (b"   ", "folder"),
    "long": (b"x" * 200, "x" * 60),
}


def listed(config: ServerConfig) -> dict[str, str]:
    """Titles by id of all that this machine offers, once they have been through a server's greeting."""
    infos = table.describe_all(config)
    encode(Welcome(1, "worker", "a test", infos, "draft", "a test"))
    assert len({info.id for info in infos}) == len(infos), "an id of two engines"
    return {info.id: info.title for info in infos}


def linked(converted: Path, config: ServerConfig, *names: bytes) -> None:
    """The model as folders of these names below the models folder."""
    config.models_dir.mkdir(parents=True, exist_ok=True)
    for name in names:
        (config.models_dir / os.fsdecode(name)).symlink_to(converted)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
@pytest.mark.parametrize(("name", "engine_id"), ODD_NAMES.values(), ids=ODD_NAMES)
def test_a_folder_of_an_odd_name_is_listed_and_loaded(
    converted: Path, config: ServerConfig, name: bytes, engine_id: str
) -> None:
    linked(converted, config, name)
    assert listed(config)[engine_id].isprintable()
    assert table.load(engine_id, config).info.available


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_a_folder_whose_name_is_no_text_hides_no_other(converted: Path, config: ServerConfig) -> None:
    linked(converted, config, b"caf\xe9", b"fine")
    assert "fine" in listed(config)
    assert "caf" not in listed(config)
    with pytest.raises(RequestError, match=r"caf\?: is not UTF-8, .*rename the folder"):
        wan.load_folder(config.models_dir / os.fsdecode(b"caf\xe9"), config)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_what_a_folder_below_an_odd_one_lacks_can_be_said(converted: Path, config: ServerConfig) -> None:
    config = attrs.evolve(config, models_dir=config.models_dir / os.fsdecode(b"caf\xe9 \x07"))
    assert "self-forcing" in listed(config)
    with pytest.raises(RequestError, match=r"caf\? \?.* is not there") as caught:
        table.load("self-forcing", config)
    assert caught.value.message.isprintable()


def test_of_folders_that_would_share_an_id_the_first_is_an_engine(converted: Path, config: ServerConfig) -> None:
    linked(converted, config, b"a b", b"a-b", b"other")
    titles = listed(config)
    assert titles["a-b"].endswith(" in a b")
    assert titles["other"].endswith(" in other")


@pytest.mark.parametrize("name", ["draft", "auto", "self-forcing-vace"])
def test_a_folder_named_like_another_engine_is_none_and_says_so_when_asked(
    converted: Path, config: ServerConfig, name: str
) -> None:
    before = listed(config)
    linked(converted, config, name.encode())
    assert listed(config) == before
    with pytest.raises(
        RequestError, match=f"would be engine {name}, which is another; give the folder a name"
    ) as caught:
        wan.load_folder(config.models_dir / name, config)
    assert caught.value.code is ErrorCode.ENGINE_UNAVAILABLE


SHORT_OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 26.00 MiB"),
    MemoryError(),
    RuntimeError("CUDA error: out of memory"),
    RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
]


def failing(error: Exception) -> Callable[..., Any]:
    def fail(*_: object) -> None:
        raise error

    return fail


@pytest.mark.parametrize("error", SHORT_OF_MEMORY, ids=repr)
def test_weights_that_do_not_fit_are_named_with_their_size(
    converted: Path, config: ServerConfig, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr(wan_load.loading, "load_vae", failing(error))
    with pytest.raises(RequestError, match=r"weights of engine my-toy take \d+\.\d GB, .*choose another") as caught:
        wan.load_folder(converted, config)
    assert caught.value.code is ErrorCode.OUT_OF_MEMORY
    assert caught.value.__context__ is None, "the cause would keep alive what was loaded"


def test_a_text_encoder_that_does_not_fit_is_no_matter_of_the_clip_s_size(
    converted: Path, config: ServerConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = wan.load_folder(converted, config)
    monkeypatch.setattr(wan_load.loading, "load_text_encoder", failing(MemoryError()))
    with pytest.raises(RequestError, match=r"text encoder, .* takes \d+\.\d GB") as caught:
        generate(engine)
    assert caught.value.code is ErrorCode.OUT_OF_MEMORY


def test_other_errors_of_loading_are_not_called_out_of_memory(
    converted: Path, config: ServerConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wan_load.loading, "load_vae", failing(RuntimeError("an illegal memory access")))
    with pytest.raises(RuntimeError, match="illegal memory access"):
        wan.load_folder(converted, config)


def test_unknown_models_and_devices_are_refused(config: ServerConfig) -> None:
    with pytest.raises(RequestError, match="there is no model 'nothing'; there are: self-forcing-vace"):
        wan.load("nothing", config)
    if not torch.cuda.is_available():
        with pytest.raises(RequestError, match="device cuda is not on this machine"):
            wan_load.choose_device(attrs.evolve(config, device="cuda"))


def test_asking_imports_no_torch() -> None:
    code = (
        "import sys; sys.modules['torch'] = sys.modules['numpy'] = None\n"
        "from sfserver.config import ServerConfig\n"
        "from sfserver.engine import wan\n"
        "assert wan.describe(ServerConfig())"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=200)
