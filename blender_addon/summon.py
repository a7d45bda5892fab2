"""A press that needs a server while none answers: look for one, start ours, carry the press out when it is there."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import bpy

from . import installing, runtime
from .plan import CannotFill
from .server import CannotStart

if TYPE_CHECKING:
    from .pump import Pump

LOOK_S = 2.0
"""How long a server that may be running is looked for before ours is started: one that is there answers at once."""


class NotInstalled(Exception):
    """There is no server to start; the sentence says why."""


@dataclass(frozen=True)
class Wish:
    """What a press asked for. Keeps nothing of Blender's alive: the scene is looked up when its time comes."""

    scene: str
    title: str
    carry_out: Callable[[bpy.types.Scene], None]


def is_there() -> bool:
    """Whether a server has said what it offers, and is not known to be gone."""
    pump = runtime.running_pump()
    return pump is not None and pump.welcome is not None and runtime.connection_state() not in ("off", "stopping")


def ask(wish: Wish) -> str:
    """Carry a wish out as soon as a server is there; returns what happens meanwhile.

    Raises NotInstalled where none is running and none can be started, Unavailable.
    """
    if runtime.server.running:
        said = "The server is starting: the gap is filled when it is there"
    elif runtime.may_be_running():
        runtime.connect()
        said = "Looking for the server: the gap is filled when it is there"
    else:
        _start()
        said = "The server is being started: the gap is filled when it is there"
    runtime.wishes.append((time.monotonic(), wish))
    runtime.wake()
    return said


def what_a_press_does() -> str:
    """For the panel, while no server is there."""
    if runtime.wishes:
        return "Waiting for the server, then the gap is filled"
    if runtime.server.running:
        return "Fill Gap waits for the server"
    if installing.installer().busy:
        return "The server is being installed: wait for it"
    try:
        installing.server_command()
    except CannotStart:
        return "Fill Gap opens the page on which the server is installed"
    return "Fill Gap starts the server"


def follow(pump: Pump) -> None:
    """At every turn: go on with what was wished for."""
    if not runtime.wishes:
        return
    if is_there() and runtime.connection_state() == "ready":
        wishes = [wish for _, wish in runtime.wishes]
        runtime.wishes.clear()
        for wish in wishes:
            _carry_out(wish, pump)
    elif not runtime.server.running:
        if runtime.server.ended_badly:
            pump.message = f"Nothing was filled. {runtime.server.ended_badly}"
            runtime.wishes.clear()
        elif time.monotonic() - runtime.wishes[0][0] > LOOK_S:
            try:  # in vain where another's file was chosen: then the client says what is wrong with it
                _start()
            except (NotInstalled, runtime.Unavailable) as error:
                pump.message = str(error)
                runtime.wishes.clear()


def _start() -> None:
    try:
        runtime.start_server()
    except CannotStart as error:
        raise NotInstalled(str(error)) from None


def _carry_out(wish: Wish, pump: Pump) -> None:
    scene = bpy.data.scenes.get(wish.scene)
    if scene is None:
        pump.message = f"The scene '{wish.scene}' is gone: nothing was filled"
        return
    try:
        wish.carry_out(scene)
    except (CannotFill, runtime.Unavailable) as error:
        pump.message = str(error)
        return
    if bpy.ops.ed.undo_push.poll():  # the press's own step was made before anything was there
        bpy.ops.ed.undo_push(message=wish.title)
