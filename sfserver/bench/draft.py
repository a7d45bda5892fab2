"""`make bench-draft`: the draft engine against true in-betweens, with RIFE alone and a dissolve beside it.

    python -m sfserver.bench.draft examples [--sheets demo/draft]

Every scene's in-betweens are known exactly (`scenes`); a figure is the mean SSIM of three of them.
"""

from __future__ import annotations

import argparse
import runpy
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
from attrs import frozen
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch import Tensor

from ..config import ServerConfig
from ..engine.draft import WEIGHTS, load
from ..engine.picture import Stage, between, staged
from ..engine.plan import Plan, plan
from ..media.sheet import ContactSheet
from ..model import rife
from ..model.rife import IFNet
from ..model.ssim import ssim
from . import runs, scenes
from .report import Measure, as_table

Picture = NDArray[np.uint8]
TIMES = (0.25, 0.5, 0.75)
TIMED = 7
"""Frames of each kind, in turns; their median counts."""
WAYS = ("dissolve", "RIFE", "fast", "fine")
SHEET_FRAMES = 9


@frozen(eq=False)
class Subject:
    name: str
    at: Callable[[float], Picture]
    """[H, W, 3], the true picture at a time."""


@frozen(eq=False)
class Score:
    """Of one scene: mean SSIM by way, the plan, and what making it took."""

    name: str
    ssim: dict[str, float]
    plan: Plan
    pair_seconds: float

    @property
    def gain(self) -> float:
        return self.ssim["fast"] - self.ssim["RIFE"]


def score(net: IFNet, subject: Subject, ways: Iterable[str] = WAYS) -> Score:
    planned, stage, took = looked_at(net, subject)
    true = {t: as_tensors(subject.at(t))[0] for t in TIMES}
    made = {way: statistics.mean(ssim(draw(net, stage, way, t), true[t]).item() for t in TIMES) for way in ways}
    return Score(subject.name, made, planned, took)


def looked_at(net: IFNet, subject: Subject) -> tuple[Plan, Stage, float]:
    """All that is done for a pair before its first in-between, and the seconds that it takes."""
    keyframes = as_tensors(subject.at(0), subject.at(1))
    began = time.process_time()
    pair = net.pair(keyframes)
    planned = plan(net, pair)
    stage = staged(net, pair, planned.layers)
    return planned, stage, time.process_time() - began


def draw(net: IFNet, stage: Stage, way: str, t: float) -> Tensor:
    """[3, H, W]: the picture at time t, one of WAYS."""
    if way == "dissolve":
        a, b = stage.given.looks[:, :3, : stage.size[0], : stage.size[1]]
        return torch.lerp(a, b, t)
    if way == "RIFE":
        return net.between(stage.given, t)
    return between(net, stage, t, both_ways=way == "fine").picture


def _staged(net: IFNet, subject: Subject, planned: Plan) -> Stage:
    return staged(net, net.pair(as_tensors(subject.at(0), subject.at(1))), planned.layers)


def as_tensors(*pictures: Picture) -> Tensor:
    return rife.from_rgb8(np.stack(pictures), torch.device("cpu"))


# Measuring


def groups(examples: Path) -> dict[str, list[Subject]]:
    return {
        "cameras": [Subject(scene.name, scene.at) for scene in scenes.cameras(examples)],
        "cut-outs": [Subject(scene.name, scene.at) for scene in scenes.cut_outs(examples)],
        "drawn fox, four poses": poses(examples),
        "known to be hard": [Subject(scene.name, scene.at) for scene in scenes.hard(examples)],
    }


def poses(examples: Path) -> list[Subject]:
    """From each of four poses of the fox on its way to the next, every in-between drawn anew."""
    script = runpy.run_path(str(examples / "make_drawn.py"))
    start, end = script["POSES"]["drawn_start"], script["POSES"]["drawn_end"]

    def drawn(share: float) -> Picture:
        pose = {key: np.asarray(a) + (np.asarray(end[key]) - np.asarray(a)) * share for key, a in start.items()}
        image: Image.Image = script["draw"](pose)
        return np.asarray(image.resize((scenes.WIDTH, scenes.HEIGHT), Image.Resampling.LANCZOS))

    return [Subject(f"fox, pose {k} to {k + 1}", lambda t, k=k: drawn((k - 1 + t) / 3)) for k in (1, 2, 3)]


def times(net: IFNet, subject: Subject, planned: Plan) -> tuple[float, float]:
    """Seconds a frame of plain RIFE and of the draft engine, in turns."""
    stage = _staged(net, subject, planned)
    seconds: dict[str, list[float]] = {"RIFE": [], "fast": []}
    for i in range(TIMED):
        for way, taken in seconds.items():
            began = time.process_time()
            draw(net, stage, way, (i + 0.5) / TIMED)
            taken.append(time.process_time() - began)
    return statistics.median(seconds["RIFE"]), statistics.median(seconds["fast"])


def rank_correlation(a: list[float], b: list[float]) -> float:
    """Spearman's."""
    one, other = (np.argsort(np.argsort(values)).astype(float) for values in (a, b))
    return float(np.corrcoef(one, other)[0, 1])


def named(subjects: dict[str, list[Subject]], score: Score) -> Subject:
    """What was scored."""
    return next(one for members in subjects.values() for one in members if one.name == score.name)


def _timed(subjects: dict[str, list[Subject]], scored: dict[str, list[Score]]) -> list[tuple[Subject, Score]]:
    """Of the cameras and the cut-outs the first, and the first cut-out in front of a moving camera."""
    both = next(one for one in scored["cut-outs"] if one.plan.layers.moves)
    wanted = (scored["cameras"][0], scored["cut-outs"][0], both)
    return [(named(subjects, one), one) for one in wanted]


def going_on() -> list[Measure]:
    """How the motion joins on to frames given before and after the gap."""
    engine = load(ServerConfig(device="cpu"))
    found: list[Measure] = []
    for clip in runs.filmed():
        with_runs, without = (runs.joined(engine, clip, given) for given in (True, False))
        beside = (
            f"without the frames around {without.jump_px:.2f}; SSIM {with_runs.ssim:.4f}, without {without.ssim:.4f}"
        )
        found.append(Measure(f"speed jumps, {clip.name}", with_runs.jump_px, 0.5, "low", "px a frame", beside))
    return found


def measures(net: IFNet, scored: dict[str, list[Score]], subjects: dict[str, list[Subject]]) -> list[Measure]:
    every = [one for scores in scored.values() for one in scores]
    means = {group: statistics.mean(one.ssim["fast"] for one in scores) for group, scores in scored.items()}
    loss = [1 - one.ssim["fast"] for one in every]
    ratios = [
        fast / alone for subject, one in _timed(subjects, scored) for alone, fast in (times(net, subject, one.plan),)
    ]
    worst = min(every, key=lambda one: one.gain)
    slowest = max(every, key=lambda one: one.pair_seconds)
    slowest_seconds = statistics.median(looked_at(net, named(subjects, slowest))[2] for _ in range(TIMED))
    rank = rank_correlation([one.plan.distance for one in every], loss)
    return [
        Measure("cameras", means["cameras"], 0.97, "high", "SSIM", "mean of nine"),
        Measure("cut-outs", means["cut-outs"], 0.97, "high", "SSIM", "mean of thirteen"),
        Measure("worst against RIFE", worst.gain, -0.005, "high", "SSIM", worst.name),
        Measure("confidence", rank, None, "high", "", "rank correlation of distance and true loss, all scenes"),
        Measure(
            "a frame", max(ratios), 1.25, "low", "x RIFE", "one thread, the slowest of a camera, a cut-out, and both"
        ),
        Measure(
            "a pair, middle",
            statistics.median(one.pair_seconds for one in every) * 1e3,
            None,
            "low",
            "ms",
            "one thread",
        ),
        Measure(
            "a pair, slowest",
            slowest_seconds * 1e3,
            800,
            "low",
            "ms",
            f"one thread, middle of {TIMED} times: {slowest.name}",
        ),
    ]


# Showing


def table(scored: dict[str, list[Score]]) -> Table:
    shown = Table("SSIM", *WAYS, "gain", "found", box=None, header_style="bold", pad_edge=False)
    for group, scores in scored.items():
        mean = {way: statistics.mean(one.ssim[way] for one in scores) for way in WAYS}
        worst = min(one.gain for one in scores)
        cells = [f"{mean[way]:.4f}" for way in WAYS]
        shown.add_row(f"{group} ({len(scores)})", *cells, f"{worst:+.4f} at worst", style="bold")
        for one in scores:
            cells = [f"{one.ssim[way]:.4f}" for way in WAYS]
            shown.add_row(f"  {one.name}", *cells, f"{one.gain:+.4f}", one.plan.findings)
    return shown


def write_sheet(folder: Path, net: IFNet, subject: Subject, planned: Plan) -> None:
    """Rows: the truth, RIFE, the draft engine."""
    stage = _staged(net, subject, planned)
    sheet = ContactSheet(3 * SHEET_FRAMES, (), scenes.WIDTH, scenes.HEIGHT)
    for k in range(SHEET_FRAMES):
        t = k / (SHEET_FRAMES - 1)
        sheet.add(k, subject.at(t))
        for row, way in ((1, "RIFE"), (2, "fast")):
            picture = rife.to_rgb8(draw(net, stage, way, t))
            sheet.add(row * SHEET_FRAMES + k, picture)
    name = "".join(c if c.isalnum() else "-" for c in subject.name)
    sheet.save(folder / f"{name}.png", subject.name, f"true, RIFE, draft: {planned.findings}", SHEET_FRAMES)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="sfserver.bench.draft", description="The draft engine against the truth")
    parser.add_argument("examples", type=Path, help="The project's folder of pictures")
    parser.add_argument("--sheets", type=Path, help="Where contact sheets go")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    net = rife.load(WEIGHTS, torch.device("cpu"))
    subjects = groups(given.examples)
    console = Console(stderr=True, highlight=False)
    scored: dict[str, list[Score]] = {}
    for group, members in subjects.items():
        console.print(f"measuring: {group}")
        scored[group] = [score(net, subject) for subject in members]
    if given.sheets:
        given.sheets.mkdir(parents=True, exist_ok=True)
        for group, members in subjects.items():
            for subject, one in zip(members, scored[group], strict=True):
                write_sheet(given.sheets, net, subject, one.plan)
    found = [*measures(net, scored, subjects), *going_on()]
    out = Console(highlight=False, width=160)
    out.print(table(scored))
    out.print(as_table(found))
    return 0 if all(one.met for one in found) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
