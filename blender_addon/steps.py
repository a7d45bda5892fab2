"""The steps that bring the private server, mend and remove it, and fetch weights for it. No Blender here."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from .installed import CannotInstall, Home, Payload

Backend = Literal["cpu", "nvidia"]

PYTORCH_INDEX = "https://download.pytorch.org/whl/"
"""Where PyTorch publishes the builds that the Python Package Index does not have."""
_BUILDS: dict[tuple[str, Backend], str] = {("linux", "cpu"): "cpu", ("win32", "nvidia"): "cu130"}
"""Those we need of them, by system. Else the Python Package Index has the right one: with CUDA on Linux, without on
Windows, of one kind alone on macOS."""

DOWNLOAD_BYTES: dict[Backend, int] = {"cpu": 300_000_000, "nvidia": 2_900_000_000}
DISK_BYTES: dict[Backend, int] = {"cpu": 1_700_000_000, "nvidia": 8_500_000_000}
"""On Linux, measured and rounded up: what comes; and what it takes with that, unpacked (1.2 and 5.2 GB, which stay)."""
_MODULES = ("torch", "numpy", "zmq", "transformers", "sfserver")
"""Imported as the last step: what cannot be loaded is better known now."""


@dataclass(frozen=True)
class Order:
    """What the user chose. `source`: a folder of wheels, an index's address, or empty for the usual places."""

    python: Path
    backend: Backend
    source: str = ""

    @property
    def needs_network(self) -> bool:
        return not (self.source and Path(self.source).is_dir())

    def where(self) -> list[str]:
        """For what comes from an index. Raises CannotInstall."""
        if not self.source:
            return []
        if not self.source.startswith(("https://", "http://", "file://")):
            raise CannotInstall(f"{self.source} is neither a folder nor an address: correct the Package Source")
        return ["--index-url", self.source]

    def build(self) -> str:
        """The address of PyTorch's index, where the usual place has another build than the one that was chosen."""
        build = _BUILDS.get((sys.platform, self.backend))
        return f"{PYTORCH_INDEX}{build}" if build and not self.source else ""


@dataclass(frozen=True)
class Step:
    """One process: what is said of it, which Python runs which words of `held.py`, its share of the whole."""

    title: str
    python: Path
    words: tuple[str, ...]
    share: float
    """Of all steps, how far the bar is when this one is done."""
    expected_bytes: int = 0
    proves: bool = False
    """After it the environment is known to be whole."""


def steps_to_install(home: Home, payload: Payload, order: Order, anew: bool) -> list[Step]:
    """Raises CannotInstall."""
    kept = ("keep", str(home.temp), str(home.downloads))
    steps = [Step("Looking at what has come", order.python, kept, 0.01)]
    if anew:
        steps.append(Step("Making the environment", order.python, ("environment", str(home.environment)), 0.02))
    if order.needs_network:
        steps += _steps_to_download(home, payload, order)
    wheels = ("--no-index", "--find-links", str(home.downloads) if order.needs_network else order.source)
    install = _pip(home, payload, "install", *wheels, str(payload.wheel))
    steps.append(Step("Installing the server", home.python, install, 0.9))
    if not anew:  # the same version may have another content, which pip would not look at
        alone = _pip(home, payload, "install", "--no-deps", "--force-reinstall", *wheels, str(payload.wheel))
        steps.append(Step("Updating the server", home.python, alone, 0.95))
    tidy = ("delete", str(home.downloads), str(home.temp))
    return [*steps, _check(home), Step("Tidying up", home.python, tidy, 1.0)]


def _steps_to_download(home: Home, payload: Payload, order: Order) -> list[Step]:
    """Into a folder: a file that lies there already, from an earlier try, is compared with the index and not had again.
    A build of PyTorch that has a name of its own, as in 2.13.0+cpu, is preferred to the plain one; from PyTorch's index
    it comes alone, since that has of all else only some versions."""
    into, expected = ("--dest", str(home.downloads)), DOWNLOAD_BYTES[order.backend]
    steps = []
    if order.build():
        torch = _pip(home, payload, "download", *into, "--no-deps", "--index-url", order.build(), "torch")
        steps.append(Step("Downloading PyTorch", home.python, torch, 0.4, expected * 2 // 3))
    known = ("--find-links", str(home.downloads))
    rest = _pip(home, payload, "download", *into, *known, *order.where(), str(payload.wheel))
    return [*steps, Step("Downloading", home.python, rest, 0.7, expected)]


def _pip(home: Home, payload: Payload, command: str, *what: str) -> tuple[str, ...]:
    """Wheels alone, none of which runs anything when it is installed; versions as they were tested together."""
    wheels = ("--only-binary", ":all:", "--constraint", str(payload.constraints), "--no-cache-dir", "--no-input")
    said = ("--progress-bar", "raw", "--disable-pip-version-check", "--log", str(home.details))
    here = ("--no-user", "--no-compile", "--no-warn-script-location") if command == "install" else ()
    return ("pip", str(payload.pip), command, *wheels, *said, *here, *what)


def _check(home: Home) -> Step:
    return Step("Trying it", home.python, ("check", *_MODULES), 0.98, proves=True)


def steps_to_mend(home: Home, python: Path) -> list[Step]:
    return [Step("Finding Python again", python, ("mend", str(home.environment)), 0.5), _check(home)]


def steps_to_remove(home: Home, python: Path) -> list[Step]:
    paths = (home.environment, home.downloads, home.temp)
    return [Step("Removing", python, ("delete", *map(str, paths)), 1.0)]


def steps_to_fetch(home: Home, engine: str) -> list[Step]:
    """Weights of a model whose licence the user has accepted."""
    fetch = ("module", "sfserver", "fetch", engine, "--accept-license")
    return [Step(f"Downloading {engine}", home.python, fetch, 1.0)]
