"""`make scale`: the tables of docs/scale.md. First the broker's decisions in a crowd, then what one front can feed."""

from __future__ import annotations

import gc
import logging
import statistics
import sys
from collections.abc import Sequence

import structlog

from . import dialled, feeding
from .crowd import JOB_S, Cost, Crowd, House, no_limits

HOUSES = House(100, 1000), House(1000, 1000), House(100, 10_000), House(1000, 10_000)
EVENTS = {
    "a client's ping": "Ping",
    "a client's credit": "Credit",
    "a frame of a worker": "Frame of a worker",
    "a request": "Generate",
    "a job that is done": "Done of a worker",
}
TICK = "tick"
"""Ten times a second, whatever happens: not an event, and not flat: it looks at each worker."""
FEWEST_CALLS = 100
MOST_S = 30.0
STEP_S = 2.0
GPU_FRAMES_PER_S = 12 / 0.344
"""Of the 1.3B model at 832x480 on an H100: a block of twelve frames in 344 ms (docs/figures.md)."""


def lived(house: House) -> tuple[Crowd, float]:
    """A house, settled, after so many seconds that each kind of event is there often enough."""
    with no_limits():
        crowd = Crowd(house)
        crowd.settle()
        gc.collect()
        gc.freeze()  # Python would look through the virtual crowd, which no server has in memory
        seconds = 0.0
        while seconds < MOST_S and min(crowd.costs[kind].seen for kind in EVENTS.values()) < FEWEST_CALLS:
            crowd.run(STEP_S)
            seconds += STEP_S
        gc.unfreeze()
    return crowd, seconds


def decisions(crowds: Sequence[tuple[Crowd, float]]) -> list[str]:
    houses = [f"{c.house.workers:,} / {c.house.clients:,}" for c, _ in crowds]
    rows = [["workers / clients", *houses]]
    for name, kind in {**EVENTS, "(a tick)": TICK}.items():
        rows.append([name, *(_cost(crowd.costs[kind]) for crowd, _ in crowds)])
    rows.append(["all events, mean", *(f"{_mean_us(crowd):.1f} us" for crowd, _ in crowds)])
    rows.append(["events a second", *(f"{_events(crowd) / s:,.0f}" for crowd, s in crowds)])
    rows.append(["of one core, ticks included", *(f"{_share(crowd, s):.1%}" for crowd, s in crowds)])
    return _table(rows)


def _cost(cost: Cost) -> str:
    return f"{statistics.median(cost.times_ns) / 1000:.1f} us, {statistics.mean(cost.lines):.0f} lines"


def _mean_us(crowd: Crowd) -> float:
    """Of all calls but the tick."""
    times = [t for kind, cost in crowd.costs.items() if kind != TICK for t in cost.times_ns]
    return statistics.mean(times) / 1000


def _events(crowd: Crowd) -> int:
    return sum(cost.seen for kind, cost in crowd.costs.items() if kind != TICK)


def _share(crowd: Crowd, seconds: float) -> float:
    return sum(statistics.mean(cost.times_ns) * cost.seen for cost in crowd.costs.values() if cost.times_ns) / (
        1e9 * seconds
    )


def queues(crowds: Sequence[tuple[Crowd, float]]) -> list[str]:
    rows = [
        ["workers / clients", "workers busy", "idle beside a waiting job", "one gap waits", "a gap of twenty waits"]
    ]
    for crowd, seconds in crowds:
        house = crowd.house
        one, many = crowd.waits_s[1], crowd.waits_s[house.animatic_gaps]
        busy = crowd.busy_s / (house.workers * seconds)
        idle = f"{crowd.idle_beside_waiting_s:.0f} s"
        rows.append([f"{house.workers:,} / {house.clients:,}", f"{busy:.0%}", idle, _waits(one), _waits(many)])
    return _table(rows)


def _waits(waits_s: list[float]) -> str:
    """In jobs' times."""
    if not waits_s:
        return "none was asked for"
    ordered = sorted(waits_s)
    return f"{ordered[len(ordered) // 2] / JOB_S:.2f}, of 100 one {ordered[len(ordered) * 99 // 100] / JOB_S:.2f}"


def fairness() -> list[str]:
    """With the house's limits as they are: one asks for sixty gaps at once, the others again and again for one."""
    rows = [["workers", "colleagues", "a colleague's gap waits, at most", "its own gaps wait, in the middle"]]
    for workers, colleagues in ((1, 1), (2, 1), (2, 5), (8, 5)):
        crowd = Crowd(House(workers, 1 + colleagues, 1 + colleagues, 60, load=1e9))
        crowd.settle()
        crowd.run(50 * JOB_S)
        one, many = crowd.waits_s[1], crowd.waits_s[60]
        rows.append(
            [
                str(workers),
                str(colleagues),
                f"{max(one) / JOB_S:.2f} jobs",
                f"{statistics.median(many) / JOB_S:.1f} jobs",
            ]
        )
    return _table(rows)


def fed() -> list[str]:
    found = feeding.measure()
    gpu_bytes_per_s = GPU_FRAMES_PER_S * found.frame_bytes
    pings = 1 / found.question_cpu_s
    return _table(
        [
            ["one front", "measured"],
            ["its processor's time for a frame of 832x480 RGB8", f"{found.frame_cpu_s * 1000:.2f} ms"],
            ["so a core moves", f"{found.bytes_per_core_s / 1e6:,.0f} MB/s, {1 / found.frame_cpu_s:,.0f} frames/s"],
            ["frames a second here, all processes on the same cores", f"{found.frames_per_s:,.0f}"],
            ["an H100 makes (34.9 frames/s)", f"{gpu_bytes_per_s / 1e6:.0f} MB/s"],
            ["so a core of the front feeds", f"{found.bytes_per_core_s / gpu_bytes_per_s:.0f} such GPUs"],
            ["a question and its answer", f"{found.question_cpu_s * 1e6:.0f} us, {pings:,.0f} clients fill a core"],
            *dialled.measure().rows(),
        ]
    )


def _table(rows: list[list[str]]) -> list[str]:
    head, *rest = rows
    return [_row(head), "|" + "---|" * len(head), *map(_row, rest), ""]


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    crowds = [lived(house) for house in HOUSES]
    sys.stdout.write("\n".join([*decisions(crowds), *queues(crowds), *fairness(), *fed()]))


if __name__ == "__main__":
    main()
