"""`make demo`: the whole road. Start the real server, send it two pictures over the real wire, collect the frames.

Photographs and drawings go to the draft engine. The small world's pair goes to the Self Forcing engine at toy size,
three times with another prompt: between the same two pictures something else happens.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
OUT = HERE.parent / "demo"
PAIRS = {
    "toy": "a toy robot raises its arm and waves while a beach ball rolls by, studio light",
    "drawn": "a fox lifts its head and sniffs the wind, storyboard, ink and flat colour",
    "push": "the camera pushes in on a street while a walker crosses it",
}
WORLD = {
    "jumps": "a red ball jumps over",
    "dives": "a red ball dives under",
    "waits": "a red ball waits, then runs",
}
SFSERVER = (sys.executable, "-m", "sfserver")


def main() -> int:
    shutil.rmtree(OUT, ignore_errors=True)
    with tempfile.TemporaryDirectory() as private:
        environment = os.environ | {
            "SFSERVER_CONNECTION_FILE": f"{private}/connection.json",
            "SFSERVER_LOG_DIR": f"{private}/log",
        }
        server = subprocess.Popen([*SFSERVER, "serve"], env=environment, stdout=subprocess.PIPE, text=True)
        try:
            assert server.stdout is not None
            print(server.stdout.readline().strip() or "the server did not start", flush=True)  # noqa: T201
            codes = [generate(OUT / name, name, prompt, environment) for name, prompt in PAIRS.items()]
            world = ("--engine", "small-world", "--frames", "18")
            codes += [generate(OUT / "world" / n, "world", said, environment, *world) for n, said in WORLD.items()]
        finally:
            server.terminate()
            server.wait(15)
    if not any(codes):
        show_world(OUT / "world" / "contact_sheet.png")
    return max(codes)


def generate(out: Path, pair: str, prompt: str, environment: dict[str, str], *further: str) -> int:
    pictures = [str(HERE / f"{pair}_{which}.png") for which in ("start", "end")]
    command = [*SFSERVER, "generate", *pictures, "--prompt", prompt, "--frames", "17", "--connect", *further]
    return subprocess.run([*command, "--out", str(out)], env=environment).returncode


def show_world(path: Path) -> None:
    """The three clips below each other: first and last picture were given, and are the same in all."""
    from sfserver.train.sheets import read_clip, strips

    strips([(said, read_clip(OUT / "world" / name / "frames")) for name, said in WORLD.items()], path)
    print(f"three prompts, three clips: {path}")  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
