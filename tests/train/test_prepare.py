"""Films and captions become latents and embeddings by the model's own encoders, once, and what is wrong is named."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from pathlib import Path

import pytest
import torch
from attrs import evolve
from safetensors.torch import load_file
from toy_models import FRAMES, HEIGHT, WIDTH, write_film, write_models

from sfserver.engine.base import Keyframe
from sfserver.engine.conditioning import encode_stills, to_pixels
from sfserver.errors import UserError
from sfserver.media.footage import SUFFIXES, read_frames
from sfserver.model.text import padded
from sfserver.train.prepare import Prepared, Wanted, encode_clip, find_films, prepare, read_shelf
from sfserver.train.published import Published

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Published:
    return write_models(tmp_path_factory.mktemp("models"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three films, two of which can be used."""
    films = tmp_path / "films"
    films.mkdir()
    write_film(films / "a.mp4", 2 * FRAMES + 3)
    write_film(films / "b.mp4", FRAMES, seed=1)
    (films / "c.mp4").write_bytes(b"this is no film")
    for name, caption in (("a", "a cat walks"), ("b", "the dog sleeps"), ("c", "the hill")):
        (films / f"{name}.txt").write_text(caption + "\n", "utf-8")
    return films


def run(folder: Path, model: Published, out: Path, captions: Path | None = None, stop_after: int | None = None):
    films, _ = find_films(folder, captions, SUFFIXES)
    wanted = Wanted(WIDTH, HEIGHT, FRAMES, model.encoders())
    read: Callable = lambda path: read_frames(path, WIDTH, HEIGHT)  # noqa: E731
    events = prepare(films, "a hill", wanted, out, model.load_text, lambda: model.load_vae(CPU), read, CPU)
    return list(islice(events, stop_after))


def problems(events: list[Prepared]) -> dict[str, str]:
    return {event.film.name: event.problem for event in events if event.problem}


def test_films_become_clips_and_a_bad_one_is_named(folder: Path, model: Published, tmp_path: Path) -> None:
    events = run(folder, model, tmp_path / "out")
    assert list(problems(events)) == ["c.mp4"]
    assert "cannot be read as a film" in problems(events)["c.mp4"]
    shelf = read_shelf(tmp_path / "out", [FRAMES])
    pool = shelf.pools[FRAMES]
    assert pool.clean.shape == (3, 5, 16, HEIGHT // 8, WIDTH // 8)  # two clips of a, one of b; a's last frames are none
    assert sorted(pool.sentence.tolist()) in ([0, 0, 1], [0, 1, 1])
    assert pool.stills is not None
    assert torch.equal(pool.stills[:, -1], pool.clean[:, -1])


def test_embeddings_are_those_that_the_engine_is_told(folder: Path, model: Published, tmp_path: Path) -> None:
    run(folder, model, tmp_path / "out")
    shelf = read_shelf(tmp_path / "out", [FRAMES])
    said = {tuple(padded(model.load_text().encode(text))[0, 0].tolist()) for text in ("a cat walks", "the dog sleeps")}
    assert {tuple(rows[0].tolist()) for rows in shelf.sentences} == said
    assert shelf.negative.shape == shelf.sentences.shape[1:]


@torch.no_grad()
def test_latents_are_the_vae_s_and_keyframes_those_of_inference(folder: Path, model: Published) -> None:
    pictures = list(islice(read_frames(folder / "a.mp4", WIDTH, HEIGHT), FRAMES))
    vae = model.load_vae(CPU)
    clean, stills = encode_clip(vae, pictures, torch.Generator().manual_seed(0), CPU)
    whole = vae.encode(torch.cat([to_pixels(picture, CPU) for picture in pictures], 1))
    torch.testing.assert_close(clean[:, :-1], whole[:, :-1].float(), atol=1e-5, rtol=1e-5)
    (end,) = drained(encode_stills(vae, [Keyframe(FRAMES - 1, pictures[-1])], CPU))
    assert torch.equal(clean[:, -1:], end.latent)
    assert float((clean[:, -1] - whole[:, -1]).abs().max()) > 1e-3, "a keyframe stands still, the film does not"
    assert stills.shape == clean.shape


def drained(steps):
    while True:
        try:
            next(steps)
        except StopIteration as done:
            return done.value


def test_the_same_call_goes_on_where_it_was_broken_off(
    folder: Path, model: Published, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(folder, model, tmp_path / "whole")
    run(folder, model, tmp_path / "broken", stop_after=1)
    first = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "broken").glob("017-*")}
    assert len(first) == 1
    run(folder, model, tmp_path / "broken")
    for path in (tmp_path / "whole").iterdir():
        broken = tmp_path / "broken" / path.name
        its = load_file(path)
        assert all(torch.equal(value, its[name]) for name, value in load_file(broken).items())
        assert first.get(path.name, broken.stat().st_mtime_ns) == broken.stat().st_mtime_ns
    (folder / "c.mp4").unlink()
    monkeypatch.setattr(Published, "load_text", None)
    monkeypatch.setattr(Published, "load_vae", None)
    events = run(folder, model, tmp_path / "broken")
    assert not problems(events), "with nothing left to do, no network is loaded"


def test_a_caption_that_changed_is_embedded_anew(folder: Path, model: Published, tmp_path: Path) -> None:
    run(folder, model, tmp_path / "out")
    before = read_shelf(tmp_path / "out", [FRAMES])
    (folder / "b.txt").write_text("a cat", "utf-8")
    run(folder, model, tmp_path / "out")
    after = read_shelf(tmp_path / "out", [FRAMES])
    assert torch.equal(before.pools[FRAMES].clean, after.pools[FRAMES].clean)
    assert before.sentences.shape != after.sentences.shape or not torch.equal(before.sentences, after.sentences)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda films: write_film(films / "b.mp4", FRAMES - 1), "has 16 frames and a clip needs 17"),
        (lambda films: (films / "b.txt").write_text("a cat walks over the hill " * 40), "tokens: the model reads 16"),
    ],
)
def test_what_cannot_be_used_is_named_and_the_rest_goes_on(
    spoil: Callable[[Path], object], says: str, folder: Path, model: Published, tmp_path: Path
) -> None:
    spoil(folder)
    events = run(folder, model, tmp_path / "out")
    assert says in problems(events)["b.mp4"]
    assert len(read_shelf(tmp_path / "out", [FRAMES]).pools[FRAMES]) == 2


def test_a_film_without_a_caption_is_named(folder: Path) -> None:
    (folder / "b.txt").unlink()
    films, bare = find_films(folder, None, SUFFIXES)
    assert [film.path.name for film in films] == ["a.mp4", "c.mp4"]
    assert len(bare) == 1
    assert "b.mp4: it has no text" in bare[0]


def test_captions_may_be_a_table(folder: Path, tmp_path: Path) -> None:
    table = tmp_path / "captions.csv"
    table.write_text('b.mp4,"a dog, asleep"\na.mp4,a cat\n', "utf-8")
    films, bare = find_films(folder, table, SUFFIXES)
    assert {film.path.name: film.caption for film in films} == {"a.mp4": "a cat", "b.mp4": "a dog, asleep"}
    assert len(bare) == 1
    table.write_text("a.mp4,a cat, walking\n", "utf-8")
    with pytest.raises(UserError, match=r"line 1 has 3 columns; write FILE,CAPTION"):
        find_films(folder, table, SUFFIXES)


def test_a_folder_without_films_or_captions_is_one_sentence(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no films"):
        find_films(tmp_path, None, SUFFIXES)
    for path in folder.glob("*.txt"):
        path.unlink()
    with pytest.raises(UserError, match="none of its 3 films has a caption"):
        find_films(folder, None, SUFFIXES)


def test_missing_clips_and_encoders_say_what_to_run(model: Published, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no clips of 17 frames; run: sfserver train prepare"):
        read_shelf(tmp_path, [FRAMES])
    with pytest.raises(UserError, match="is not there; run: sfserver fetch self-forcing"):
        evolve(model, models_dir=tmp_path).encoders()
