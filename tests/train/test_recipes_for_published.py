"""Recipes for published weights: each starts at toy size by the command that starts it, and what is wrong is said."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from attrs import evolve
from sfwire.messages import EngineInfo
from toy_models import HEIGHT, WIDTH, write_film, write_models

from sfserver.cli import main
from sfserver.config import ServerConfig
from sfserver.engine import wan
from sfserver.engine.base import Chunk, Job, Keyframe, checked
from sfserver.engine.capacity import dit_parameters
from sfserver.errors import UserError
from sfserver.model.config import TOY, WAN_1_3B
from sfserver.model.dit import Dit
from sfserver.train import published
from sfserver.train.lora import Lora
from sfserver.train.memory import Load, check_fits, needed
from sfserver.train.recipe import recipe_path

RECIPES = ("anchored-lora", "artist-style", "self-forcing-full")
SIZE = f"{WIDTH}x{HEIGHT}"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_models(tmp_path_factory.mktemp("models")).models_dir


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("films")
    for n, caption in enumerate(("a cat walks", "the dog sleeps")):
        write_film(folder / f"{n}.mp4", 33, n)
        (folder / f"{n}.txt").write_text(caption, "utf-8")
    return folder


@pytest.fixture(autouse=True)
def machine(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The published models are of toy size, and their negative prompt is one that the toy's tokenizer can say."""
    monkeypatch.setenv("SFSERVER_MODELS_DIR", str(models))
    monkeypatch.setenv("SFSERVER_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(published, "NEGATIVE", "the hill")
    whole = published.published
    monkeypatch.setattr(published, "published", lambda name, folder: toy(whole(name, folder)))


def toy(model: published.Published) -> published.Published:
    return evolve(model, preset=evolve(model.preset, dit=TOY))


@pytest.fixture(scope="module")
def shards(films: Path, models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("shards")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SFSERVER_MODELS_DIR", str(models))
        patch.setattr(published, "NEGATIVE", "the hill")
        assert main(["train", "prepare", str(films), "--out", str(out), "--size", SIZE, "--device", "cpu"]) == 0
    return out


def short(name: str, folder: Path) -> str:
    """The recipe as it comes, but for its length."""
    text = recipe_path(name).read_text("utf-8")
    text, count = re.subn(r"steps = \d{3,}, learning", "steps = 1, learning", text)
    assert count
    path = folder / f"{name}.toml"
    path.write_text(re.sub(r"accumulate = \d+", "accumulate = 1", text), "utf-8")
    return str(path)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_starts_and_leaves_an_engine(
    name: str, shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "trained"
    assert main(["train", short(name, tmp_path), "--out", str(out), "--data", str(shards), "--accept-license"]) == 0
    assert "GB in all of device memory, estimated" in capsys.readouterr().err
    config = ServerConfig(models_dir=tmp_path, device="cpu")
    (out / "model").rename(tmp_path / "mine")
    info = wan.describe_folder(tmp_path / "mine", config)
    assert info.available, info.missing
    assert frames_of(info, tmp_path / "mine", config) == 7
    assert (out / "lora" / "adapter_model.safetensors").exists() == (name != "self-forcing-full")


def frames_of(info: EngineInfo, folder: Path, config: ServerConfig) -> int:
    picture = np.full((HEIGHT, WIDTH, 3), 90, dtype=np.uint8)
    job = Job(WIDTH, HEIGHT, 9, (Keyframe(0, picture), Keyframe(8, picture)), prompt="a cat")
    events = wan.load_folder(folder, config).open(checked(job, info))
    return sum(len(event.frames) for event in events if isinstance(event, Chunk))


@pytest.mark.parametrize("name", RECIPES)
def test_it_is_refused_in_one_sentence(
    name: str, shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    start = ["train", short(name, tmp_path), "--out", str(tmp_path / "out")]

    def said(*more: str) -> str:
        assert main([*start, *more]) == 2
        return capsys.readouterr().err

    assert "what is trained from it is under it too" in said("--data", str(shards))
    assert "this recipe needs clips" in said("--accept-license")
    assert "holds no clips of 33 frames" in said("--accept-license", "--data", str(tmp_path))
    monkeypatch.setattr("sfserver.train.place.free_bytes", lambda device: 10**6)
    assert "GB are free on the device; prepare clips at a smaller --size" in said(
        "--accept-license", "--data", str(shards)
    )
    monkeypatch.setenv("SFSERVER_MODELS_DIR", str(tmp_path / "nothing"))
    assert "run: sfserver fetch" in said("--accept-license", "--data", str(shards))


def test_films_without_captions_are_refused_before_anything_is_loaded(
    films: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "captions.csv"
    table.write_text("another.mp4,a cat\n", "utf-8")
    assert main(["train", "prepare", str(films), "--captions", str(table), "--out", str(tmp_path / "out")]) == 2
    assert "none of its 2 films has a caption" in capsys.readouterr().err


def test_the_arithmetic_counts_what_there_is() -> None:
    load = Load(TOY, latents=9, height=4, width=6, batch=1, per_block=3, lora_rank=4, dmd=True)
    with torch.device("meta"):
        lora = Lora(Dit(TOY), 4, torch.Generator())
    values = sum(parameter.numel() for parameter in lora.parameters())
    assert needed(load)["what learns"] == values * (2 * 16 + 4)  # of generator and critic, and the average of one
    assert needed(load)["weights"] == 2 * 2 * dit_parameters(TOY)
    assert needed(evolve(load, lora_rank=0))["weights"] == 2 * dit_parameters(TOY)


def test_one_card_of_24_gb_holds_the_additions_and_eighty_the_whole() -> None:
    clips = Load(WAN_1_3B, latents=9, height=34, width=60, batch=1, per_block=3, dmd=True, recompute=True)
    additions = evolve(clips, lora_rank=32, offload=True, graph="exit+memory")
    check_fits("anchored", needed(additions), 23 * 10**9)
    check_fits("self-forcing", needed(evolve(clips, height=46, width=80)), 79 * 10**9)
    with pytest.raises(UserError, match=r"stage self-forcing needs about 6\d\.\d GB and 23\.0 GB are free"):
        check_fits("self-forcing", needed(clips), 23 * 10**9)
    more = [needed(evolve(additions, **{field: False}))["weights"] for field in ("offload",)]
    assert more[0] > needed(additions)["weights"] + 4 * 10**9
