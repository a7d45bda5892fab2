"""The one Installer of this Blender, in which folder and by which Python; and which server is meant by *the* server."""

from __future__ import annotations

import shlex
import shutil
import sys
from functools import cache
from pathlib import Path

import bpy

from .chosen import preferences
from .install import Installer
from .installed import CannotInstall, Home, Payload, State
from .server import CannotStart, find_command
from .steps import Backend, Order

PROGRAM = "sfserver"
_WHY_NOT: dict[State, str] = {
    "absent": "The server is not installed",
    "half": "The server's installation was broken off: continue it",
    "moved": "The Python that the server was installed with is gone, Blender was moved or updated: mend it",
}


@cache
def installer() -> Installer:
    """In the extension's user folder, with what lies in the zip. Changes nothing on disk."""
    folder = Path(bpy.utils.extension_path_user(__package__)) / "server"
    return Installer(Home(folder), Payload(Path(__file__).parent / "server"))


def python() -> Path:
    """Blender's own, as a program: it makes the environment and stays as it is."""
    return Path(sys.executable)


def backend() -> Backend:
    """What was chosen, or what suits this computer."""
    chosen = preferences().backend
    if chosen == "auto":
        return "nvidia" if sys.platform != "darwin" and has_nvidia() else "cpu"
    return chosen


@cache
def has_nvidia() -> bool:
    """Whether NVIDIA's driver is there."""
    return shutil.which("nvidia-smi") is not None or Path("/proc/driver/nvidia/version").exists()


def order() -> Order:
    source = preferences().source
    return Order(python(), backend(), bpy.path.abspath(source) if source.startswith("//") else source)


def state() -> State:
    """As `Installer.state`; without what the zip should bring nothing can be newer. Cheap enough to be asked while
    drawing."""
    try:
        return installer().state
    except CannotInstall:
        return "ready"


def server_command() -> list[str]:
    """The server that the user chose; else the private one; else the one on PATH. Raises CannotStart."""
    command, environment = preferences().command, bpy.path.abspath(preferences().environment)
    if environment or command.split()[:1] != [PROGRAM]:
        return find_command(command, environment)
    there = state()
    if there in ("ready", "old"):
        return installer().home.command(shlex.split(command))
    if installer().busy:
        raise CannotStart("The server is being installed: wait for it")
    try:
        return find_command(command, "")
    except CannotStart:
        raise CannotStart(_WHY_NOT[there]) from None
