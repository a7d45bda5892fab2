"""`make animatic-demo`: five drawn panels as an OpenTimelineIO storyboard, filled, and rendered to a movie to look at.

The fox of make_drawn.py in five poses, each held for a second. `sfserver animatic --hold` takes the last third of each
hold, and what it writes is played here frame by frame: what another editor shows, without another editor.
"""

from __future__ import annotations

import runpy
import shutil
import subprocess
import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import opentimelineio as otio
from opentimelineio.opentime import RationalTime, TimeRange
from PIL import Image

from sfserver.media import ClipWriter, ContactSheet

HERE = Path(__file__).parent
OUT = HERE.parent / "demo" / "animatic"
RATE = 24
HELD, TAKEN = 24, 8
"""Frames: of each panel, and of its end for the in-betweens."""
PANELS = {
    "asleep": ({"head": 12.0, "nod": (2, 6), "tail": -10.0, "wind": -0.4, "flap": -0.4}, "the wind wakes the fox"),
    "awake": ({}, "she lifts her head"),
    "lookout": (
        {"head": -9.0, "nod": (-4, -5), "tail": 4.0, "wind": 0.5, "bird": (26, -8), "flap": 0.6, "cloud": 8},
        "",
    ),
    "gust": (
        {"head": -7.0, "nod": (-6, -3), "tail": 14.0, "wind": 1.3, "bird": (52, -22), "flap": 1.0, "cloud": 18},
        "",
    ),
    "calm": ({"head": 2.0, "nod": (-1, 1), "tail": -2.0, "wind": 0.1, "bird": (78, -30), "flap": 0.2, "cloud": 26}, ""),
}
"""What is another than in the first picture of the pair, and what is to happen on the way to the next panel."""


def main() -> int:
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir(parents=True)
    draw_panels()
    otio.adapters.write_to_file(storyboard(), str(OUT / "board.otio"))
    command = [sys.executable, "-m", "sfserver", "animatic", str(OUT / "board.otio"), "--hold", str(TAKEN)]
    code = subprocess.run([*command, "--out", str(OUT / "filled.otio")]).returncode
    if code == 0:
        render(OUT / "filled.otio", OUT / "filled.mp4", OUT / "contact_sheet.png")
    return code


def draw_panels() -> None:
    fox = runpy.run_path(str(HERE / "make_drawn.py"))
    for name, (changes, _) in PANELS.items():
        fox["draw"](fox["POSES"]["drawn_start"] | changes).save(OUT / f"{name}.png")


def storyboard() -> otio.schema.Timeline:
    timeline = otio.schema.Timeline("The fox on the hill")
    track = otio.schema.Track("Panels", kind=otio.schema.TrackKind.Video)
    for name, (_, words) in PANELS.items():
        media = otio.schema.ExternalReference(f"{name}.png")
        held = TimeRange(RationalTime(0, RATE), RationalTime(HELD, RATE))
        track.append(otio.schema.Clip(name, media, held, metadata={"note": words}))
    timeline.tracks.append(track)
    return timeline


def render(path: Path, clip: Path, sheet: Path) -> None:
    """The first track of a filled storyboard as a movie, and its in-betweens and panels at a glance."""
    timeline = otio.adapters.read_from_file(str(path))
    frames = [frame for item in timeline.tracks[0] for frame in played(item, path.parent)]
    height, width = frames[0].shape[:2]
    writer = ClipWriter(clip, width, height, Fraction(RATE))
    for frame in frames:
        writer.write(frame)
    writer.close()
    panels = set(range(0, len(frames), HELD))
    shown = [at for at in range(len(frames)) if at in panels or at % HELD >= HELD - TAKEN]
    contact = ContactSheet(len(shown), [i for i, at in enumerate(shown) if at in panels], width, height)
    for i, at in enumerate(shown[: -TAKEN or None]):
        contact.add(i, frames[at])
    contact.save(sheet, timeline.name, f"{len(frames)} frames, {RATE} fps  ·  {clip.name}", columns=TAKEN + 1)
    print(f"{len(frames)} frames rendered: {clip}, at a glance: {sheet}")  # noqa: T201


def played(clip: otio.schema.Clip, folder: Path) -> Iterator[np.ndarray]:
    file, shown = folder / clip.media_reference.target_url, clip.trimmed_range()
    if file.suffix == ".png":
        with Image.open(file) as picture:
            yield from [np.asarray(picture.convert("RGB"))] * round(shown.duration.value)
        return
    with av.open(str(file)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    start = round(shown.start_time.value)
    yield from frames[start : start + round(shown.duration.value)]


if __name__ == "__main__":
    sys.exit(main())
