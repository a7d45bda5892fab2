"""A folder of films and what is to be seen in them -> what training reads: latents and prompt embeddings.

Both are made by the model's own encoders, once; neither is needed while training. Each film becomes one safetensors
file of clips, one after the other. It is there as a whole or not at all, and says what it was made from: the same call
goes on where it was broken off, and makes anew what has changed.
"""

from __future__ import annotations

import csv
import hashlib
import os
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import torch
from attrs import frozen
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..engine.base import Keyframe
from ..engine.conditioning import encode_stills, to_pixels
from ..engine.geometry import frames_of, latent_of
from ..errors import UserError
from ..model.tae import Tae
from ..model.text import PromptTooLong, TextEncoder, clean_prompt
from ..model.vae import WanVae
from .latents import Latents
from .loop import step_random

if TYPE_CHECKING:
    from ..engine.base import Picture

NEGATIVE_NAME = "negative.safetensors"
Answer = TypeVar("Answer")


@frozen
class Film:
    """One film of a folder."""

    path: Path
    caption: str


@frozen
class Wanted:
    """What films are made into."""

    width: int
    height: int
    num_frames: int
    """Of each clip: 1 + 4k."""
    encoders: str
    """Names the weights of the encoders: others make other latents."""


@frozen
class Prepared:
    """One film is done, or was skipped with a `problem`."""

    film: Path
    done: int
    of: int
    problem: str = ""


def find_films(folder: Path, captions: Path | None, suffixes: Sequence[str]) -> tuple[list[Film], list[str]]:
    """The films of a folder, in order of their names, and a sentence for each that has no caption.

    `captions` is a table of file and caption; without one, the caption of film.mp4 is in film.txt beside it. Raises
    UserError where nothing is to be prepared.
    """
    try:
        paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in suffixes)
    except OSError as error:
        raise UserError(f"{folder}: cannot be read ({error.strerror}); name a folder of films") from None
    if not paths:
        raise UserError(f"{folder}: holds no films ({', '.join(suffixes)}); name a folder that does")
    table = _read_table(captions) if captions else None
    films = [Film(path, table.get(path.name, "") if table is not None else _read_beside(path)) for path in paths]
    where = f"it has no line in {captions}" if captions else "it has no text of its own name beside it"
    bare = [
        f"{film.path}: {where}, or an empty one; say what is to be seen in it" for film in films if not film.caption
    ]
    if len(bare) == len(films):
        raise UserError(f"{folder}: none of its {len(films)} films has a caption; {bare[0]}")
    return [film for film in films if film.caption], bare


def _read_table(path: Path) -> Mapping[str, str]:
    """A CSV of two columns. Raises UserError."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = [row for row in csv.reader(file) if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: cannot be read as a table ({error}); write lines of FILE,CAPTION in UTF-8") from None
    for number, row in enumerate(rows, 1):
        if len(row) != 2:
            raise UserError(
                f"{path}: line {number} has {len(row)} columns; write FILE,CAPTION, a caption with commas in quotes"
            )
    return {Path(name.strip()).name: clean_prompt(caption) for name, caption in rows}


def _read_beside(path: Path) -> str:
    try:
        return clean_prompt(path.with_suffix(".txt").read_text("utf-8-sig"))
    except (OSError, UnicodeDecodeError):
        return ""


def prepare(
    films: Sequence[Film],
    negative: str,
    wanted: Wanted,
    out: Path,
    load_text: Callable[[], TextEncoder],
    load_vae: Callable[[], WanVae | Tae],
    read: Callable[[Path], Iterator[Picture]],
    device: torch.device,
) -> Generator[Prepared, None, None]:
    """A file in `out` for each film that has none yet. A film that cannot be read, is too short or has a caption too
    long is skipped and named. `read` gives a film's frames at the wanted size, and raises UserError.
    """
    out.mkdir(parents=True, exist_ok=True)
    keys = {film: _key(film, wanted) for film in films}
    due = [film for film in films if _made_of(_path_of(out, film, wanted)) != keys[film]]
    negative_key = _digest(negative, wanted.encoders)
    due_negative = _made_of(out / NEGATIVE_NAME) != negative_key
    problems: dict[str, str] = {}
    prompts = {film.caption for film in due} | ({negative} if due_negative else set())
    rows = _embedded(prompts, load_text, problems) if prompts else {}
    if due_negative:
        if negative in problems:
            raise UserError(f"the negative prompt is {problems[negative]}")
        _write(out / NEGATIVE_NAME, {"text": rows[negative]}, {"key": negative_key})
    vae = load_vae() if due else None
    for number, film in enumerate(films, 1):
        problem = f"its caption is {problems[film.caption]}" if film.caption in problems else ""
        if film in due and not problem:
            assert vae
            try:
                clips = _encoded(vae, read(film.path), wanted, keys[film], device)
                about = {"key": keys[film], "source": film.path.name, "caption": film.caption}
                _write(_path_of(out, film, wanted), {**clips, "text": rows[film.caption]}, about)
            except UserError as error:
                problem = str(error)
        yield Prepared(film.path, number, len(films), problem)


def _embedded(prompts: set[str], load: Callable[[], TextEncoder], problems: dict[str, str]) -> Mapping[str, Tensor]:
    """The valid rows [L, D] of each prompt. The encoder is large, and gone before anything else is loaded."""
    encoder, rows = load(), {}
    for prompt in sorted(prompts):
        try:
            rows[prompt] = encoder.encode(prompt)
        except PromptTooLong as error:
            problems[prompt] = str(error)
    return rows


@torch.no_grad()
def _encoded(
    vae: WanVae | Tae, frames: Iterator[Picture], wanted: Wanted, key: str, device: torch.device
) -> dict[str, Tensor]:
    """All clips of a film, one after the other; what is left at its end is left out."""
    random = step_random(0, int(key[:12], 16))
    clips: list[tuple[Tensor, Tensor]] = []
    while len(pictures := list(islice(frames, wanted.num_frames))) == wanted.num_frames:
        clips.append(encode_clip(vae, pictures, random, device))
    if not clips:
        raise UserError(f"it has {len(pictures)} frames and a clip needs {wanted.num_frames}; take a longer one")
    clean, stills = (torch.cat(parts).to(torch.bfloat16) for parts in zip(*clips, strict=True))
    return {"clean": clean, "stills": stills}


def encode_clip(
    vae: WanVae | Tae, pictures: Sequence[Picture], random: torch.Generator, device: torch.device
) -> tuple[Tensor, Tensor]:
    """`Latents.clean` and `Latents.stills` of one clip of 1 + 4k pictures, [1, F, C, H, W] float32 on the CPU.

    The last latent is the last picture's as a keyframe; the stills between are of one of their four frames each.
    """
    last, state = latent_of(len(pictures) - 1), vae.new_encoder_state()
    clean, stills = [], []
    for position in range(last + 1):
        frames = frames_of(position)
        pixels = torch.cat([to_pixels(pictures[frame], device) for frame in frames], 1)
        clean.append(vae.encode(pixels, state).float().cpu())
        at = frames[int(torch.randint(len(frames), (1,), generator=random))] if position < last else frames[-1]
        (still,) = _answer(encode_stills(vae, [Keyframe(at, pictures[at])], device))
        stills.append(still.latent.cpu())
    return torch.cat([*clean[:-1], stills[-1]], 1), torch.cat([clean[0], *stills[1:]], 1)


def _answer(steps: Generator[object, None, Answer]) -> Answer:
    while True:
        try:
            next(steps)
        except StopIteration as done:
            return done.value


def _key(film: Film, wanted: Wanted) -> str:
    found = film.path.stat()
    size = f"{wanted.width}x{wanted.height}x{wanted.num_frames}"
    return _digest(film.path.name, film.caption, str(found.st_size), str(found.st_mtime_ns), size, wanted.encoders)


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _path_of(out: Path, film: Film, wanted: Wanted) -> Path:
    return out / f"{wanted.num_frames:03}-{_digest(film.path.name)[:16]}.safetensors"


def _made_of(path: Path) -> str:
    """The key of what a file was made from; empty where there is none that can be read."""
    try:
        with safe_open(path, framework="pt") as file:
            return (file.metadata() or {}).get("key", "")
    except (OSError, SafetensorError):
        return ""


def _write(path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, str]) -> None:
    part = path.with_suffix(".part")
    save_file({name: value.contiguous() for name, value in tensors.items()}, part, metadata=dict(about))
    os.replace(part, path)


@frozen(eq=False)
class Shelf:
    """What a prepared folder holds."""

    pools: Mapping[int, Latents]
    """By length in frames."""
    sentences: Tensor
    """[S, T, text_dim], zeros behind a caption's rows; T is that of the longest."""
    negative: Tensor
    """[T, text_dim]"""


def read_shelf(folder: Path, lengths: Iterable[int]) -> Shelf:
    """Clips of these lengths, all in memory. Raises UserError where there are none, or of several sizes."""
    texts: list[Tensor] = []
    pools = {num_frames: _read_pool(folder, num_frames, texts) for num_frames in lengths}
    try:
        negative = load_file(folder / NEGATIVE_NAME)["text"]
    except (OSError, SafetensorError, KeyError):
        raise UserError(f"{folder / NEGATIVE_NAME}: is not there or damaged; run: sfserver train prepare") from None
    longest = max(len(rows) for rows in (*texts, negative))
    *rows, negative = (torch.nn.functional.pad(rows, (0, 0, 0, longest - len(rows))) for rows in (*texts, negative))
    return Shelf(pools, torch.stack(rows), negative)


def _read_pool(folder: Path, num_frames: int, texts: list[Tensor]) -> Latents:
    """The clips of a length, their captions added to `texts`."""
    clips: list[dict[str, Tensor]] = []
    sentence: list[int] = []
    for path in sorted(folder.glob(f"{num_frames:03}-*.safetensors")):
        try:
            tensors = load_file(path)
            sentence += [len(texts)] * len(tensors["clean"])
            texts.append(tensors["text"])
        except (OSError, SafetensorError, KeyError):
            raise UserError(f"{path}: cannot be read; delete it and run sfserver train prepare again") from None
        if clips and tensors["clean"].shape[1:] != clips[0]["clean"].shape[1:]:
            raise UserError(f"{path}: has clips of another size than the others in {folder}; prepare all at one --size")
        clips.append(tensors)
    if not clips:
        raise UserError(f"{folder}: holds no clips of {num_frames} frames; run: sfserver train prepare --out {folder}")
    clean, stills = (torch.cat([shard[name] for shard in clips]) for name in ("clean", "stills"))
    near = torch.ones(len(clean), clean.shape[1] - 2, *clean.shape[3:], dtype=torch.bool)
    return Latents(clean, near, torch.tensor(sentence), stills)
