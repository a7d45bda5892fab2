"""`make cluster-demo`: a Ray cluster of two nodes on this machine, a server whose workers it places, six gaps, one node
killed in the middle, and the filled storyboard as a movie to look at.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import opentimelineio as otio
from sfwire.client import Client

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
import animatic  # noqa: E402  its panels and its player

OUT = HERE.parents[1] / "demo" / "cluster"
PANELS = {**animatic.PANELS, "again": animatic.PANELS["lookout"], "night": animatic.PANELS["asleep"]}
"""Seven: six gaps between them."""
PATIENCE_S = 600.0


def main() -> int:
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir(parents=True)
    os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    connection = OUT / "run" / "connection.json"
    os.environ |= {"SFSERVER_CONNECTION_FILE": str(connection), "SFSERVER_LOG_DIR": str(OUT)}
    board()
    say("a Ray cluster of two nodes")
    with started([sys.executable, str(HERE / "on_loopback.py"), "1", "1"]) as cluster:
        address = told(cluster)["address"]
        say(f"a server, and two workers that the cluster at {address} places")
        serve = ["serve", "--ray", address, "--ray-gpus", "0", "--workers", "2"]
        with started([sys.executable, "-m", "sfserver", *serve]) as server:
            until(lambda: connection.exists() or server.poll() is not None)
            with Client(name="demo") as client:
                until(lambda: sum(worker.state == "idle" for worker in client.status(PATIENCE_S).workers) == 2)
                code = fill(cluster)
    if code == 0:
        animatic.render(OUT / "filled.otio", OUT / "filled.mp4", OUT / "contact_sheet.png")
    return code


def fill(cluster: subprocess.Popen[str]) -> int:
    """Fill the six gaps, and kill a node once the first of them is there; the exit code."""
    command = ["animatic", str(OUT / "board.otio"), "--hold", str(animatic.TAKEN), "--engine", "draft", "--connect"]
    filling = subprocess.Popen([sys.executable, "-m", "sfserver", *command, "--out", str(OUT / "filled.otio")])
    until(lambda: filling.poll() is not None or any((OUT / "filled_inbetween").glob("*.mp4")))
    if filling.poll() is None:
        say("one node is killed, with all that runs on it")
        cluster.stdin.write("fall 0\n")  # type: ignore[union-attr]
        cluster.stdin.flush()  # type: ignore[union-attr]
        told(cluster)
    return filling.wait(PATIENCE_S)


def board() -> None:
    animatic.OUT, animatic.PANELS = OUT, PANELS
    animatic.draw_panels()
    otio.adapters.write_to_file(animatic.storyboard(), str(OUT / "board.otio"))


@contextmanager
def started(command: list[str]) -> Iterator[subprocess.Popen[str]]:
    """Ends with the end of the pipe, or by the signal that Ctrl-C is."""
    pipe = subprocess.PIPE
    with (OUT / f"{Path(command[1]).stem}{len(command)}.log").open("w") as log:
        process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=log, text=True)
    try:
        yield process
    finally:
        if process.stdin:
            process.stdin.close()
        if "serve" in command:
            process.terminate()
        process.wait(120)


def told(cluster: subprocess.Popen[str]) -> dict[str, str]:
    assert cluster.stdout is not None
    return json.loads(cluster.stdout.readline())


def until(done) -> None:  # type: ignore[no-untyped-def]
    deadline = time.monotonic() + PATIENCE_S
    while not done():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {PATIENCE_S:.0f} s; logs are in {OUT}")
        time.sleep(0.2)


def say(sentence: str) -> None:
    sys.stdout.write(f"{sentence}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
