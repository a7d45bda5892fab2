"""What servers, disks and strangers can do to the extension: a sentence for the user, never a hole, never a crash."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import bpy
import in_blender as b
import pytest

GAP = 12


@pytest.fixture
def pump(scene, fake, tmp_path):
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "edit.blend"))
    b.two_pictures(scene, tmp_path, gap=GAP)
    return b.connect()


def whole(strip):
    names = [f"frame_{i:05d}.png" for i in range(1, GAP + 1)]
    return b.names_of(strip) == names and b.right(strip) - b.left(strip) == GAP and not strip.lock


def stopped_at(scene, frames):
    strips = b.ours(scene)
    assert len(strips) == (1 if frames else 0)
    for strip in strips:
        assert b.names_of(strip) == [f"frame_{i:05d}.png" for i in range(1, frames + 1)]
        assert (b.right(strip) - b.left(strip), strip.lock, strip["inbetween"]["state"]) == (frames, False, "stopped")


@pytest.mark.parametrize("at", [1, 5, GAP])
def test_a_server_that_dies_and_comes_back_resumes_without_a_hole(scene, pump, fake, at):
    fake.behave(die_at=at)
    fill = b.fill()
    b.turn_until(lambda: fake.process.poll() is not None)
    fake.process.stdin.close()
    fake.process.stdout.close()
    b.turn_until(lambda: "Reconnecting" in fill.stage)
    assert (pump.state, len(fill.names)) == ("reconnecting", at - 1)
    fake.start()
    b.turn_until(lambda: not pump.fills)
    assert whole(b.ours(scene)[0])


def test_a_server_that_stops_answering_and_comes_back_resumes(scene, pump, fake):
    fake.behave(hold_at=6)
    b.fill()
    b.turn_until(lambda: len(b.ours(scene)[0].elements) == 5)
    fake.behave(deaf=True)
    b.turn_until(lambda: pump.state == "reconnecting")
    fake.behave(deaf=False, hold_at=None)
    b.turn_until(lambda: not pump.fills)
    assert whole(b.ours(scene)[0])


@pytest.mark.parametrize("at", [1, 7])
def test_a_request_that_fails_keeps_what_came_and_says_why(scene, pump, fake, at):
    fake.behave(fail_at=at)
    b.fill()
    b.turn_until(lambda: not pump.fills)
    assert pump.message == "as the test asked"
    stopped_at(scene, at - 1)


def test_a_worker_that_dies_once_is_retried_unseen(scene, pump, fake):
    fake.behave(fail_at=5, fail_code="worker_died", retryable=True)
    fill = b.fill()
    b.turn_until(lambda: len(fill.names) == 4)
    fake.behave(fail_at=None)
    b.turn_until(lambda: not pump.fills)
    assert whole(b.ours(scene)[0])


@pytest.mark.parametrize("fault", ["not_a_png_at", "wrong_size_at"])
def test_a_frame_that_is_no_picture_of_the_size_asked_for_ends_the_fill_before_it(scene, pump, fake, fault):
    fake.behave(**{fault: 4})
    b.fill()
    b.turn_until(lambda: not pump.fills)
    assert "Frame 4 is not a PNG of 64 x 36" in pump.message
    stopped_at(scene, 3)


def test_a_full_disk_keeps_the_frames_before_it_and_names_the_remedy(scene, pump, fake, monkeypatch):
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    opened = Path.open

    def on_a_full_disk(path, *given, **named):
        return (
            open("/dev/full", "wb", buffering=0)
            if path.name == "frame_00006.png.part"
            else opened(path, *given, **named)
        )

    monkeypatch.setattr(Path, "open", on_a_full_disk)
    fake.behave(hold_at=2)
    b.fill()
    fake.behave(hold_at=None)
    b.turn_until(lambda: not pump.fills)
    assert "frame_00006.png could not be written" in pump.message
    assert os.strerror(28) in pump.message
    stopped_at(scene, 5)


def test_a_folder_that_cannot_be_made_is_refused_before_anything_changes(scene, pump, fake, tmp_path):
    (tmp_path / "inbetween").write_text("a file where the folder should be")
    with pytest.raises(RuntimeError, match=r"Frames cannot be kept in .*inbetween"):
        bpy.ops.inbetween.fill_gap()
    assert (b.ours(scene), pump.fills) == ([], [])


def test_a_folder_that_vanishes_in_mid_stream_ends_the_fill_with_a_sentence(scene, pump, fake):
    fake.behave(hold_at=5)
    fill = b.fill()
    b.turn_until(lambda: len(fill.names) == 4)
    away = fill.folder.with_name("away")
    fill.folder.rename(away)
    fake.behave(hold_at=None)
    b.turn_until(lambda: not pump.fills)
    assert "could not be written" in pump.message


def test_without_a_server_nothing_is_asked_of_an_engine(scene, tmp_path):
    b.two_pictures(scene, tmp_path)
    begin, plan = b.module("begin"), b.module("plan")
    with pytest.raises(plan.CannotFill, match="No server is connected: press Start Server"):
        begin.engine_for(scene)
    assert bpy.ops.inbetween.fill_gap.poll()  # what a press does then is in test_install_page.py


def test_an_engine_that_the_server_does_not_offer_is_named(scene, pump):
    scene.inbetween.engine_id = "gone"
    plan = b.module("plan")
    with pytest.raises(plan.CannotFill, match="does not offer the engine gone: choose another"):
        b.module("begin").engine_for(scene)
    assert scene.inbetween.engine == "gone"
    scene.inbetween.engine = "auto"
    assert scene.inbetween.engine_id == "auto"


def test_an_incomplete_engine_says_what_is_missing(scene, fake, tmp_path):
    fake.behave(engine={"available": False, "missing": ["weights.safetensors: run sfserver fetch"]})
    b.connect()
    with pytest.raises(b.module("plan").CannotFill, match=r"Fake cannot run: weights.safetensors: run sfserver fetch"):
        b.module("begin").engine_for(scene)


# The server's process


@pytest.fixture
def preferences(scene):
    found = bpy.context.preferences.addons[b.PACKAGE].preferences
    yield found
    for name in ("command", "environment", "connection_file", "keep_running"):
        found.property_unset(name)


def test_a_server_that_is_not_installed_says_so(preferences):
    preferences.command = "no-such-server serve"
    with pytest.raises(RuntimeError, match="no-such-server was not found on PATH: install it, or choose"):
        bpy.ops.inbetween.start_server()


def test_a_server_that_fails_shows_its_last_words(preferences, tmp_path):
    runtime = b.module("runtime")
    script = tmp_path / "server.py"
    script.write_text("print('line one'); raise SystemExit('no GPU driver: install one')")
    preferences.command = f"{sys.executable} {script}"
    assert bpy.ops.inbetween.start_server() == {"FINISHED"}
    b.turn_until(lambda: not runtime.server.running)
    assert runtime.server.ended_badly == "The server ended with exit code 1"
    assert runtime.server.last_words() == ["line one", "no GPU driver: install one"]


def test_a_server_that_ignores_the_request_to_end_is_killed(preferences, tmp_path, monkeypatch):
    runtime = b.module("runtime")
    monkeypatch.setattr(b.module("server"), "KILL_AFTER_S", 0.3)
    script = tmp_path / "server.py"
    script.write_text("import signal, time; signal.signal(15, signal.SIG_IGN); print('on', flush=True); time.sleep(60)")
    preferences.command = f"{sys.executable} {script}"
    bpy.ops.inbetween.start_server()
    b.turn_until(lambda: runtime.server.last_words() == ["on"])
    assert bpy.ops.inbetween.stop_server() == {"FINISHED"}
    b.turn_until(lambda: not runtime.server.running)
    assert runtime.server.ended_badly == ""


def test_online_access_is_asked_before_another_computer_is(scene, fake, tmp_path, preferences):
    far = CONNECTION.replace("127.0.0.1:1", "192.0.2.1:5555")
    path = tmp_path / "far.json"
    path.write_text(far)
    path.chmod(0o600)
    preferences.connection_file = str(path)
    assert not bpy.app.online_access
    bpy.ops.inbetween.connect()
    pump = b.module("runtime").pump()
    b.turn_until(lambda: pump.client.problem)
    assert "allow online access" in pump.client.problem
    assert pump.state == "connecting"


CONNECTION = (
    '{"format": 1, "endpoint": "tcp://127.0.0.1:1", "server_public_key": "%s", "client_public_key": "%s", '
    '"client_secret_key": "%s", "pid": 0}' % (("a" * 40,) * 3)
)


def test_blenders_end_takes_the_server_with_it(tmp_path):
    """A process that imports bpy, starts a server through the extension and simply ends."""
    pid_file = tmp_path / "pid"
    server = tmp_path / "server.py"
    server.write_text(f"import os, time; open({str(pid_file)!r}, 'w').write(str(os.getpid())); time.sleep(120)")
    program = (
        "import bpy, addon_utils, time, os\n"
        f"addon_utils.enable({b.PACKAGE!r}, default_set=True)\n"
        f"bpy.context.preferences.addons[{b.PACKAGE!r}].preferences.command = {f'{sys.executable} {server}'!r}\n"
        "bpy.ops.inbetween.start_server()\n"
        f"while not os.path.exists({str(pid_file)!r}): time.sleep(0.02)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=200, cwd=tmp_path)
    deadline = time.monotonic() + 60
    while alive(int(pid_file.read_text())):
        assert time.monotonic() < deadline, "the server outlived Blender"
        time.sleep(0.05)


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
