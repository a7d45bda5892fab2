"""What lives as long as the extension is enabled: one pump, one server process, one timer, the handlers.

The pump's module and with it the wire's libraries are imported when a connection is first asked for, so that
enabling the extension costs nothing and a damaged installation can be explained.
"""

from __future__ import annotations

import atexit
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import bpy
from bpy.app.handlers import persistent

from . import capture, frames, installing, keep, sequencer, strips
from .chosen import preferences
from .server import Server

if TYPE_CHECKING:
    from .pump import Pump
    from .sfwire.connection import Connection

WAIT_S = 0.2
"""Until the next look while Blender renders or saves."""

server = Server()
_pump: Pump | None = None
_occupied: set[str] = set()
"""What Blender is doing that strips must not change under: `render`, `save`."""
_after_turn: list[Callable[[Pump], None]] = []
_connected_pid = 0
"""Of the server whose connection file was read last."""
_gone_boot = ""
"""The boot of a server that was started here and has ended."""
_undone = False
notice = ""
"""What was done with frames when the file was saved, for the panel."""
broken_off = 0
"""Strips of the file that was loaded last that were not finished and that nobody stopped."""
wishes: list[tuple[float, Any]] = []
"""(when, what) was pressed while no server was there, see `summon`. They belong to the file that is open."""
_drawn: object = None
"""What the panel showed when it was last told to draw."""


class Unavailable(Exception):
    """Why no server can be talked to from here, in a sentence with the remedy."""


def running_pump() -> Pump | None:
    """The pump, if a connection was ever asked for."""
    return _pump


def pump() -> Pump:
    """The pump. Raises Unavailable where the libraries of the wire cannot be loaded."""
    global _pump
    if _pump is None:
        try:
            from .pump import Pump
        except ImportError as error:
            raise Unavailable(f"A library is missing ({error}): install the extension again") from None
        _pump = Pump(bpy.app.version_string)
    return _pump


def connect() -> None:
    """Look for a server from now on. Raises Unavailable."""
    pump().connect(_finder(preferences().connection_file))
    wake()


def start_server() -> None:
    """Start the server that is meant, and look for it. Raises CannotStart and Unavailable."""
    command = installing.server_command()
    try:
        log = Path(bpy.utils.extension_path_user(__package__, create=True)) / "server.log"
        server.start(command, log, preferences().keep_running)
    except OSError as error:
        raise Unavailable(f"The server's log cannot be written: {error.strerror}") from None
    if needs_connection():
        connect()
    wake()


def may_be_running() -> bool:
    """Whether a server left word of itself, if only before it was killed. Raises Unavailable."""
    pump()  # its libraries
    from .sfwire.errors import NoConnectionFile

    try:
        _finder(preferences().connection_file)()
    except NoConnectionFile:
        return bool(preferences().connection_file)
    return True


def needs_connection() -> bool:
    """Whether nobody is looking for a server yet, or in vain."""
    return _pump is None or _pump.state in ("off", "refused")


def connection_state() -> str:
    """As `Pump.state`, and `stopping`. A server that was started here is known to be gone before it fails to answer."""
    if server.stopping:
        return "stopping"
    if _pump is None:
        return "off"
    if _pump.state == "ready" and _pump.welcome is not None and _pump.welcome.boot == _gone_boot:
        return "reconnecting" if _pump.fills else "off"
    return _pump.state


def _watch_server() -> None:
    """Notice the end of our server, and whether it is the one that we are connected to."""
    global _gone_boot
    pid = server.pid
    server.watch()
    if pid is not None and not server.running and pid == _connected_pid and _pump is not None and _pump.welcome:
        _gone_boot = _pump.welcome.boot


def _finder(file: str) -> Callable[[], Connection]:
    """Reads the connection file; refuses what is not on this computer while Blender is not to go online."""
    from .sfwire import connection
    from .sfwire.errors import NoConnectionFile

    path = Path(bpy.path.abspath(file)) if file else None

    def find() -> Connection:
        global _connected_pid
        found = connection.read(path)
        if not found.is_loopback and not bpy.app.online_access:
            raise NoConnectionFile("The server is on another computer: allow online access in Preferences, System")
        _connected_pid = found.pid
        return found

    return find


# The timer


def wake() -> None:
    """See to it that the timer runs."""
    if not bpy.app.timers.is_registered(_on_timer):
        bpy.app.timers.register(_on_timer, first_interval=0.0, persistent=True)


def _on_timer() -> float | None:
    if _occupied or bpy.app.is_job_running("RENDER"):
        return WAIT_S
    try:
        return turn(time.monotonic())
    except Exception as error:  # the boundary: a timer that raises is dropped by Blender, and strips would stay locked
        traceback.print_exc()
        if _pump is not None:
            _pump.forget()
            _pump.message = f"Something went wrong inside the extension: {error}"
        strips.settle_orphans()
        return WAIT_S


def turn(now: float) -> float | None:
    """What the timer does, one time: returns the seconds until the next, None if none is needed."""
    global _undone
    _watch_server()
    if _undone:  # not in the handler: Blender has not finished its undo there
        _undone = False
        keep.find_again()
    installer = installing.installer()
    installer.step()
    interval = None
    if _pump is not None:
        interval = _pump.tick(now)
        for follow in _after_turn:
            follow(_pump)
    _redraw_if_changed()
    return WAIT_S if interval is None and (server.running or installer.busy) else interval


def _redraw_if_changed() -> None:
    global _drawn
    installer = installing.installer()
    seen: list[object] = [connection_state(), notice, server.running, server.ended_badly]
    seen += [installer.doing, installer.problem]
    if _pump is not None:
        seen += [_pump.client.problem if _pump.client is not None else None, _pump.message, len(_pump.ended)]
        seen += [(fill.job, fill.stage, len(fill.names), fill.final_frames) for fill in _pump.fills]
    if seen != _drawn:
        _drawn = seen
        sequencer.redraw()


# What Blender tells


@persistent
def _on_render_begin(*_: object) -> None:
    _occupied.add("render")
    capture.forget_rendered()


@persistent
def _on_render_end(*_: object) -> None:
    _occupied.discard("render")


@persistent
def _on_save_begin(file: str, *_: object) -> None:
    global notice
    _occupied.add("save")
    if not file:
        return  # the startup file
    notice = ""
    if _pump is not None:
        _pump.saved()
    try:
        brought = keep.bring_beside(Path(file))
    except OSError as error:
        notice = f"Frames could not be brought beside the file, they stay where they are: {error.strerror}"
        return
    for job, folder in brought.items():
        if _pump is not None:
            _pump.moved(job, folder)
    if brought:
        notice = f"The frames of {len(brought)} takes were brought beside the file, into {frames.FOLDER}"


@persistent
def _on_save_end(*_: object) -> None:
    _occupied.discard("save")
    keep.make_relative()


@persistent
def _on_load_begin(*_: object) -> None:
    wishes.clear()
    if _pump is not None:
        _pump.forget()


@persistent
def _on_load_end(*_: object) -> None:
    global notice, broken_off
    _occupied.clear()
    notice = ""
    keep.find_again()
    broken_off = strips.settle_orphans()


@persistent
def _on_undo(*_: object) -> None:
    global _undone
    _undone = True
    if _pump is not None:
        _pump.after_undo()
    wake()


_HANDLERS = {
    "render_init": _on_render_begin,
    "render_complete": _on_render_end,
    "render_cancel": _on_render_end,
    "save_pre": _on_save_begin,
    "save_post": _on_save_end,
    "save_post_fail": _on_save_end,
    "load_pre": _on_load_begin,
    "load_post": _on_load_end,
    "load_post_fail": _on_load_end,
    "undo_post": _on_undo,
    "redo_post": _on_undo,
}


def register(*after_turn: Callable[[Pump], None]) -> None:
    """`after_turn` are called whenever the pump was turned: what follows from what the server said."""
    _after_turn.extend(after_turn)
    for event, handler in _HANDLERS.items():
        getattr(bpy.app.handlers, event).append(handler)
    atexit.register(_quit)


def unregister() -> None:
    """The extension is switched off: end everything, strips keep what they have."""
    global _pump, notice, broken_off
    atexit.unregister(_quit)
    for event, handler in _HANDLERS.items():
        handlers = getattr(bpy.app.handlers, event)
        if handler in handlers:  # another extension may have cleared the list
            handlers.remove(handler)
    if bpy.app.timers.is_registered(_on_timer):
        bpy.app.timers.unregister(_on_timer)
    if _pump is not None:
        _pump.leave()
        _pump = None
    server.let_go()
    installing.installer().let_go()
    _occupied.clear()
    _after_turn.clear()
    wishes.clear()
    notice, broken_off = "", 0


def _quit() -> None:
    """Blender ends: its data is gone already, our socket and the server are not."""
    if _pump is not None:
        _pump.close()
    server.let_go()
    installing.installer().let_go()
