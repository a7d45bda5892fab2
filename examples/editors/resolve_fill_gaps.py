"""DaVinci Resolve (18.5 and later): fill the gaps of the current timeline and import the result.

Copy this file into Resolve's folder of scripts (Fusion/Scripts/Edit), or run it from Resolve's console. It exports the
timeline as OpenTimelineIO, runs `sfserver animatic` and imports what came out as a new timeline.

Tried: the command that it runs, on timelines of the same kind. Not tried: Resolve itself, which was not at hand; the
calls are those of its scripting documentation. Licence of this script: CC0.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path


def main() -> None:
    project = resolve.GetProjectManager().GetCurrentProject()  # noqa: F821  (Resolve gives its scripts this name)
    timeline = project.GetCurrentTimeline()
    if timeline is None:
        sys.exit("open a timeline first")
    program = shutil.which("sfserver")
    if program is None:
        sys.exit("sfserver is not on the PATH that Resolve was started with")
    folder = Path.home() / "Movies" / "inbetween"
    folder.mkdir(parents=True, exist_ok=True)
    board, filled = folder / f"{timeline.GetName()}.otio", folder / f"{timeline.GetName()}_filled.otio"
    if not timeline.Export(str(board), resolve.EXPORT_OTIO):  # noqa: F821
        sys.exit("Resolve could not export the timeline")
    # ProRes: the free Resolve for Linux does not read H.264
    command = [program, "animatic", str(board), "--out", str(filled), "--absolute", "--codec", "prores", "--overwrite"]
    done = subprocess.run(command, capture_output=True, text=True)
    print(done.stderr, done.stdout)  # noqa: T201
    if done.returncode == 0 and not project.GetMediaPool().ImportTimelineFromFile(str(filled)):
        sys.exit(f"Resolve could not import {filled}; import it by hand: File > Import > Timeline")


main()
