"""Full disks, few descriptors, little memory: whoever cannot go on says so in a sentence, and leaves nothing."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import socket as sockets
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import psutil
from attrs import frozen
from PIL import Image
from servers import request
from sfwire import connection as connections
from sfwire.errors import WireError

from .figures import Plan
from .frames import follow
from .house import MARK, House

LONGEST_SENTENCE = 1000
READY_WITHIN_S = 300.0
LIMIT = (
    "import os, resource, sys\n"
    "name, value = sys.argv[1], int(sys.argv[2])\n"
    "resource.setrlimit(getattr(resource, name), (value, value))\n"
    "os.execv(sys.argv[3], sys.argv[3:])"
)
"""A program that runs another with less."""


@frozen
class Scene:
    """One case: a folder of its own, and somewhere to say what went wrong."""

    plan: Plan
    folder: Path
    name: str

    def wrong(self, what: str) -> None:
        self.plan.figures.find("broken", f"{self.name}: {what}")

    def judge(self, said: str, code: int | None) -> None:
        """Of a command that may have failed: sentences, no tracebacks, no code of a crash."""
        if "Traceback (most recent call last)" in said:
            self.plan.figures.find("exceptions", f"{self.name}: {said.strip().splitlines()[-1]}")
        if any(len(line) > LONGEST_SENTENCE for line in said.splitlines()):
            self.wrong(f"a sentence of {max(map(len, said.splitlines()))} characters")
        if code is not None and code != 0 and not said.strip():
            self.wrong(f"exit code {code} without a word")

    def serve(self, prefix: tuple[str, ...] = (), **places: Path) -> None:
        """`sfserver serve` with its files in these places: it serves a client, or says why not and leaves nothing."""
        mark = f"{self.folder.name}-{os.getpid()}"
        connection = places.get("connection", self.folder / "run" / "connection.json")
        environment = os.environ | {
            MARK: mark,
            "HOME": str(self.folder),
            "SFSERVER_CONNECTION_FILE": str(connection),
            "SFSERVER_LOG_DIR": str(places.get("log", self.folder / "log")),
            "SFSERVER_MODELS_DIR": str(self.folder / "models"),
            "SFSERVER_CACHE_DIR": str(self.folder / "cache"),
        }
        command = [*prefix, sys.executable, "-m", "sfserver", "serve"]
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        words = Words(process)
        deadline = time.monotonic() + READY_WITHIN_S
        while process.poll() is None and time.monotonic() < deadline and not words.ready:
            time.sleep(0.05)
        if process.poll() is None:
            if not words.ready:
                self.wrong(f"after {READY_WITHIN_S:.0f} s it neither serves nor ends; it said {words.said[-300:]!r}")
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(30)
        House(self.folder, mark=mark).wait_gone(self.plan.figures, self.name)
        words.wait()
        self.plan.figures.counts["served" if words.ready else "refused"] += 1
        self.judge(words.said, process.poll())
        if leftovers := [p.name for p in connection.parent.glob(".*.part")]:
            self.wrong(f"it left {leftovers}")


class Words:
    """What a process says, as it comes. Through a pipe: a file would be under the limits that are being tried."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._lines: list[str] = []
        self._thread = threading.Thread(target=self._read, args=(process.stdout,), daemon=True)
        self._thread.start()

    @property
    def said(self) -> str:
        return "".join(self._lines)

    @property
    def ready(self) -> bool:
        return "is ready" in self.said

    def wait(self) -> None:
        self._thread.join(30)

    def _read(self, pipe: IO[bytes]) -> None:
        with pipe:
            for line in pipe:
                self._lines.append(line.decode("utf-8", "replace"))


@contextlib.contextmanager
def small_disk(folder: Path, kilobytes: int) -> Iterator[Path | None]:
    """A disk of that size, or None where nobody may mount one."""
    folder.mkdir(parents=True)
    options = ["-t", "tmpfs", "-o", f"size={kilobytes}k,mode=0700", "tmpfs", str(folder)]
    mounted = os.geteuid() == 0 and subprocess.run(["mount", *options], capture_output=True).returncode == 0
    try:
        yield folder if mounted else None
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(folder)], check=False)


def fill(disk: Path) -> None:
    """Not a byte is free afterwards."""
    with contextlib.suppress(OSError), (disk / "filler").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


def limited(name: str, value: int) -> tuple[str, ...]:
    return (sys.executable, "-c", LIMIT, name, str(value))


def log_on_a_full_disk(scene: Scene) -> None:
    with small_disk(scene.folder / "disk", 64) as disk:
        if disk is None:
            scene.serve(limited("RLIMIT_FSIZE", 0))
            return
        fill(disk)
        scene.serve(log=disk / "log")


def connection_file_on_a_full_disk(scene: Scene) -> None:
    with small_disk(scene.folder / "disk", 64) as disk:
        if disk is None:
            scene.serve(limited("RLIMIT_FSIZE", 100))
            return
        (disk / "run").mkdir(mode=0o700)
        fill(disk)
        scene.serve(connection=disk / "run" / "connection.json")


def files_may_have_no_bytes(scene: Scene) -> None:
    scene.serve(limited("RLIMIT_FSIZE", 0))


def the_disk_fills_up_in_mid_stream(scene: Scene) -> None:
    with small_disk(scene.folder / "log", 256) as disk:
        if disk is None:
            return
        house = House(scene.folder)
        house.start()
        try:
            house.wait_ready()
            with house.client(name="full disk") as client:
                for number in range(3):
                    if number == 1:
                        fill(disk)
                    wanted = request(25, seed=number)
                    with client.submit(wanted) as stream:
                        follow(stream, wanted).count(scene.plan.figures, f"{scene.name}, clip {number}")
        finally:
            house.stop(scene.plan.figures, scene.name)


def few_descriptors(count: int) -> Callable[[Scene], None]:
    def case(scene: Scene) -> None:
        scene.serve(limited("RLIMIT_NOFILE", count))

    case.__name__ = f"{count}_descriptors"
    return case


def little_memory(megabytes: int) -> Callable[[Scene], None]:
    def case(scene: Scene) -> None:
        scene.serve(limited("RLIMIT_AS", megabytes * 2**20))

    case.__name__ = f"{megabytes}_MB_of_addresses"
    return case


def strangers_take_all_descriptors(scene: Scene) -> None:
    """More idle connections than the front may have, while a clip streams; another comes when they have gone."""
    house = House(scene.folder, prefix=limited("RLIMIT_NOFILE", 128))
    house.start()
    strangers: list[sockets.socket] = []
    try:
        house.wait_ready()
        host, port = connections.read(house.connection_file).endpoint.removeprefix("tcp://").rsplit(":", 1)
        front = house.find("front")

        def crowd(count: int) -> None:
            if count == 3:
                for _ in range(200):
                    with contextlib.suppress(OSError):
                        strangers.append(sockets.create_connection((host, int(port)), timeout=5))

        with house.client(name="descriptors") as client:
            for number in range(2):
                wanted = request(60, seed=number, delay_ms=5.0)
                with client.submit(wanted) as stream:
                    follow(stream, wanted, crowd).count(scene.plan.figures, f"{scene.name}, clip {number}")
                while strangers:
                    strangers.pop().close()
        now = house.find("front")
        if front is None or now is None or front.pid != now.pid:
            scene.wrong("the front ended")
    finally:
        for stranger in strangers:
            stranger.close()
        house.stop(scene.plan.figures, scene.name)


def a_clip_for_a_full_disk(scene: Scene) -> None:
    for name, colour in (("a", 40), ("b", 200)):
        Image.new("RGB", (64, 48), (colour, 90, 120)).save(scene.folder / f"{name}.png")
    with small_disk(scene.folder / "disk", 64) as disk:
        command = [
            sys.executable,
            "-m",
            "sfserver",
            "generate",
            "../a.png",
            "../b.png",
            "--frames",
            "9",
            "--out",
            "clip",
        ]
        if disk is None:
            disk = scene.folder / "disk"
            command = [*limited("RLIMIT_FSIZE", 100), *command]
        else:
            fill(disk)
        done = subprocess.run(command, cwd=disk, capture_output=True, text=True, timeout=200, check=False)
        scene.judge(done.stderr, done.returncode)
        if done.returncode == 0:
            scene.wrong("it says that it is done")


CASES: tuple[Callable[[Scene], None], ...] = (
    the_disk_fills_up_in_mid_stream,
    strangers_take_all_descriptors,
    log_on_a_full_disk,
    connection_file_on_a_full_disk,
    few_descriptors(20),
    files_may_have_no_bytes,
    a_clip_for_a_full_disk,
    little_memory(300),
    *(few_descriptors(count) for count in (8, 12, 16, 24, 32, 48, 64)),
    *(little_memory(megabytes) for megabytes in (150, 600, 1200, 4000)),
)


def run(plan: Plan) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
    try:
        for number, _ in plan.cases():
            case = CASES[number % len(CASES)]
            folder = plan.folder / f"limits-{number}"
            folder.mkdir(parents=True)
            scene = Scene(plan, folder, case.__name__)
            try:
                case(scene)
            except (WireError, TimeoutError, OSError, psutil.Error) as error:
                scene.wrong(repr(error))
            shutil.rmtree(folder, ignore_errors=True)
            yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
