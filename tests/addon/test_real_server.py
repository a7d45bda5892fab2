"""The installed extension, the real server started from it, and the draft engine."""

from __future__ import annotations

import json
import os
import signal
import socket
from pathlib import Path

import bpy
import in_blender as b

GAP = 8


def whole(strip):
    names = [f"frame_{i:05d}.png" for i in range(1, GAP + 1)]
    return b.names_of(strip) == names and b.right(strip) - b.left(strip) == GAP and not strip.lock


def test_a_gap_fills_from_start_server_to_the_last_frame(scene, served, tmp_path):
    b.two_pictures(scene, tmp_path, gap=GAP)
    b.fill()
    b.turn_until(lambda: not served.fills, timeout_s=b.SERVER_S)
    assert served.message == ""
    assert whole(b.ours(scene)[0])
    assert b.ours(scene)[0]["inbetween"]["engine"] == "draft"
    reds = [b.shown_at(scene, frame, tmp_path)[0] for frame in (5, 6, 9, 13, 14)]
    assert reds == sorted(reds, reverse=True)  # from the red picture to the green one, without a jump at either end
    assert reds[0] - reds[1] < 60
    assert reds[-2] - reds[-1] < 60


def test_the_engines_own_settings_are_offered_and_sent(scene, served, tmp_path):
    parameters = scene.inbetween.parameters
    assert parameters["draft.easing"] == 0
    parameters["draft.easing"] = 1
    b.two_pictures(scene, tmp_path, gap=GAP)
    assert b.fill().record.params["easing"] == "in"
    b.turn_until(lambda: not served.fills, timeout_s=b.SERVER_S)
    assert whole(b.ours(scene)[0])


def test_one_worker_makes_a_draft_first_and_then_what_takes_its_time(scene, served, tmp_path):
    scene.inbetween.engine_id, scene.inbetween.prompt = "small-world", "a ball rolls to the right"
    b.two_pictures(scene, tmp_path, gap=GAP)
    fill = b.fill()
    b.turn_until(lambda: len(fill.names) == GAP or not served.fills, timeout_s=b.SERVER_S)
    assert (fill.final_frames, fill.draft.problem) == (0, "")
    drafted = [b.names_of(b.ours(scene)[0])[0]]
    b.turn_until(lambda: fill.final_frames or not served.fills, timeout_s=b.SERVER_S)
    assert len(fill.names) == GAP
    b.turn_until(lambda: not served.fills, timeout_s=b.SERVER_S)
    assert (served.message, drafted) == ("", ["draft_00001.png"])
    assert whole(b.ours(scene)[0])
    assert b.ours(scene)[0]["inbetween"]["engine"] == "small-world"
    assert list(fill.folder.glob("draft_*")) == []


def worker_of(server):
    """The process that makes frames: the descendant that holds the most memory."""
    parents = {int(stat.parent.name): int(stat.read_text().rsplit(")", 1)[1].split()[1]) for stat in stats()}
    family, found = {server._process.pid}, -1
    while len(family) != found:
        found = len(family)
        family |= {pid for pid, parent in parents.items() if parent in family}
    return max(family, key=lambda pid: int(Path(f"/proc/{pid}/statm").read_text().split()[1]))


def stats():
    return [path for path in Path("/proc").glob("[0-9]*/stat") if path.exists()]


def test_a_worker_killed_in_mid_stream_leaves_no_hole(scene, served, tmp_path):
    scene.render.resolution_x, scene.render.resolution_y = 320, 180
    b.two_pictures(scene, tmp_path, gap=GAP)
    fill = b.fill()
    b.turn_until(lambda: len(fill.names) >= 1, timeout_s=b.SERVER_S)
    os.kill(worker_of(b.module("runtime").server), signal.SIGKILL)
    b.turn_until(lambda: not served.fills, timeout_s=b.SERVER_S)
    assert served.message == ""
    assert whole(b.ours(scene)[0])


def test_a_server_killed_and_started_again_in_mid_stream_leaves_no_hole(scene, served, tmp_path):
    scene.render.resolution_x, scene.render.resolution_y = 320, 180
    b.two_pictures(scene, tmp_path, gap=GAP)
    fill, server = b.fill(), b.module("runtime").server
    b.turn_until(lambda: len(fill.names) >= 1, timeout_s=b.SERVER_S)
    server._process.kill()
    b.turn_until(lambda: not server.running, timeout_s=b.SERVER_S)
    assert server.ended_badly == "The server was killed, by signal 9: start it again"
    assert server.last_words() == []  # the last was that it is ready
    assert bpy.ops.inbetween.start_server() == {"FINISHED"}
    b.turn_until(lambda: not served.fills, timeout_s=b.SERVER_S)
    assert served.message == ""
    assert whole(b.ours(scene)[0])


def test_a_server_stopped_and_started_again_in_mid_stream_leaves_no_hole(scene, served, tmp_path):
    scene.render.resolution_x, scene.render.resolution_y = 320, 180
    b.two_pictures(scene, tmp_path, gap=GAP)
    fill, server = b.fill(), b.module("runtime").server
    b.turn_until(lambda: len(fill.names) >= 1, timeout_s=b.SERVER_S)
    assert bpy.ops.inbetween.stop_server() == {"FINISHED"}
    assert b.module("runtime").connection_state() == "stopping"
    b.turn_until(lambda: not server.running, timeout_s=b.SERVER_S)
    assert b.module("runtime").connection_state() != "ready"
    assert server.ended_badly == ""
    assert bpy.ops.inbetween.start_server() == {"FINISHED"}
    b.turn_until(lambda: not served.fills, timeout_s=b.SERVER_S)
    assert served.message == ""
    assert whole(b.ours(scene)[0])


def test_a_server_that_was_stopped_is_not_said_to_be_connected(scene, served):
    runtime = b.module("runtime")
    assert runtime.connection_state() == "ready"
    assert bpy.ops.inbetween.stop_server() == {"FINISHED"}
    said = set()
    b.turn_until(lambda: said.add(runtime.connection_state()) or not runtime.server.running, timeout_s=b.SERVER_S)
    assert "ready" not in said
    assert runtime.connection_state() == "off"
    assert bpy.ops.inbetween.start_server() == {"FINISHED"}
    b.turn_until(lambda: runtime.connection_state() == "ready", timeout_s=b.SERVER_S)


def listens(port):
    with socket.socket() as knock:
        return knock.connect_ex(("127.0.0.1", port)) == 0


def test_a_connection_file_that_a_killed_server_left_does_not_mislead(scene, served, tmp_path):
    server = b.module("runtime").server
    left = b.CONNECTION_FILE.read_bytes()
    server._process.kill()
    b.turn_until(lambda: not server.running)
    port = int(json.loads(left)["endpoint"].rsplit(":", 1)[1])
    b.turn_until(lambda: not listens(port))  # its front notices and ends too
    b.CONNECTION_FILE.write_bytes(left)
    b.CONNECTION_FILE.chmod(0o600)
    bpy.ops.inbetween.connect()
    b.turn_for(0.5)
    assert served.state == "connecting"
    assert bpy.ops.inbetween.start_server() == {"FINISHED"}
    b.turn_until(lambda: served.state == "ready", timeout_s=b.SERVER_S)
