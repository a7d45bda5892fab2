"""One button: what Fill Gap does while no server is there, and the page that installs one."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import SimpleNamespace

import bpy
import in_blender as b
import pytest
import wheels
from test_panel import Layout


@pytest.fixture(autouse=True)
def own_server(scene, tmp_path, monkeypatch):
    """The private server's home and payload are the test's own, its packages come from a folder."""
    install, installing = b.module("install"), b.module("installing")
    installer = install.Installer(install.Home(tmp_path / "user ü" / "server"), wheels.put_payload(tmp_path / "zip"))
    monkeypatch.setattr(installing, "installer", lambda: installer)
    preferences = bpy.context.preferences.addons[b.PACKAGE].preferences
    preferences.source = str(wheels.put_heavy(tmp_path / "wheels"))
    yield installer
    installer.let_go()
    b.module("runtime").wishes.clear()
    preferences = bpy.context.preferences.addons[b.PACKAGE].preferences  # one test switched it off and on
    for name in ("source", "backend", "command", "environment"):
        preferences.property_unset(name)


@pytest.fixture
def preferences():
    return bpy.context.preferences.addons[b.PACKAGE].preferences


@pytest.fixture
def shown(monkeypatch):
    """How often the page was opened: without a window it cannot be."""
    opened = []
    operator = b.module("install_operators").INBETWEEN_OT_show_install
    monkeypatch.setattr(operator, "execute", lambda self, context: opened.append(1) or {"FINISHED"})
    bpy.utils.unregister_class(operator)
    bpy.utils.register_class(operator)
    yield opened
    monkeypatch.undo()
    bpy.utils.unregister_class(operator)
    bpy.utils.register_class(operator)


def install():
    assert bpy.ops.inbetween.install_server() == {"FINISHED"}
    installer = b.module("installing").installer()
    b.turn_until(lambda: not installer.busy)
    assert installer.problem == ""


def page():
    """What the preferences show, drawn onto a layout that notes it."""
    preferences = bpy.context.preferences.addons[b.PACKAGE].preferences
    context = SimpleNamespace(
        preferences=SimpleNamespace(system=SimpleNamespace(ui_scale=1.0)), region=SimpleNamespace(width=100000)
    )
    layout = Layout()
    drawn = SimpleNamespace(
        **{name: getattr(preferences, name) for name in ("backend", "source")},
        layout=layout,
        path_resolve=preferences.path_resolve,
    )
    b.module("preferences").InbetweenPreferences.draw(drawn, context)
    return layout


def test_from_the_zip_to_a_filled_gap_with_two_presses(scene, tmp_path, shown, own_server):
    runtime = b.module("runtime")
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "edit.blend"))
    b.two_pictures(scene, tmp_path, gap=3)
    bpy.ops.inbetween.fill_gap()
    assert shown == [1]
    assert (runtime.wishes, b.ours(scene)) == ([], [])
    install()
    assert bpy.ops.inbetween.fill_gap() == {"FINISHED"}
    b.select(scene)  # what a user clicks meanwhile changes nothing
    b.turn_until(lambda: not runtime.wishes, timeout_s=b.SERVER_S)
    pump = runtime.pump()
    b.turn_until(lambda: not pump.fills, timeout_s=b.SERVER_S)
    assert pump.message == ""
    assert len(b.ours(scene)[0].elements) == 3
    started = Path(f"/proc/{runtime.server.pid}/cmdline").read_bytes().split(b"\0")
    assert b"serve" in started
    assert runtime.server._process.args[0] == str(own_server.home.python)


def test_a_press_that_waits_is_carried_out_by_a_server_that_runs_already(scene, fake, tmp_path):
    runtime = b.module("runtime")
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "edit.blend"))
    b.two_pictures(scene, tmp_path)
    assert bpy.ops.inbetween.fill_gap() == {"FINISHED"}
    assert len(runtime.wishes) == 1
    pump = runtime.pump()
    b.turn_until(lambda: not runtime.wishes)
    b.turn_until(lambda: not pump.fills)
    assert not runtime.server.running
    assert len(b.ours(scene)[0].elements) == 12


def test_a_press_is_forgotten_with_its_file_and_when_the_server_is_stopped(scene, fake, tmp_path):
    runtime = b.module("runtime")
    b.two_pictures(scene, tmp_path)
    bpy.ops.inbetween.fill_gap()
    assert runtime.wishes
    bpy.ops.wm.read_homefile(use_empty=True)
    assert runtime.wishes == []


def test_a_gap_whose_strips_were_moved_meanwhile_is_not_filled_over_them(scene, fake, tmp_path):
    runtime = b.module("runtime")
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "edit.blend"))
    b.two_pictures(scene, tmp_path)
    bpy.ops.inbetween.fill_gap()
    second = b.strips(scene)["B"]
    name = "content_start" if hasattr(second, "content_start") else "frame_start"
    setattr(second, name, getattr(second, name) + 7)
    b.turn_until(lambda: not runtime.wishes)
    assert "were moved before the server was there: press Fill Gap again" in runtime.pump().message
    assert b.ours(scene) == []


def test_a_server_that_left_its_file_and_is_gone_is_followed_by_ours(scene, fake, tmp_path, monkeypatch):
    runtime, started = b.module("runtime"), []
    monkeypatch.setattr(b.module("summon"), "LOOK_S", 0.1)
    monkeypatch.setattr(runtime, "start_server", lambda: started.append(1) or runtime.wishes.clear())
    fake.kill()
    b.CONNECTION_FILE.write_bytes(fake.connection)
    b.CONNECTION_FILE.chmod(0o600)
    b.two_pictures(scene, tmp_path)
    bpy.ops.inbetween.fill_gap()
    b.turn_until(lambda: started)


def test_a_server_that_ends_at_once_says_so_where_the_press_was(scene, tmp_path, preferences):
    script = tmp_path / "server.py"
    script.write_text("raise SystemExit('no')")
    preferences.command = f"{sys.executable} {script}"
    runtime = b.module("runtime")
    b.two_pictures(scene, tmp_path)
    bpy.ops.inbetween.fill_gap()
    b.turn_until(lambda: not runtime.wishes)
    assert runtime.pump().message == "Nothing was filled. The server ended with exit code 1"


def test_the_private_server_is_meant_unless_another_is_chosen(own_server, preferences, tmp_path, monkeypatch):
    installing, server = b.module("installing"), b.module("server")
    other = tmp_path / "other" / "bin" / "sfserver"
    other.parent.mkdir(parents=True)
    other.write_text("")
    other.chmod(0o755)
    monkeypatch.setenv("PATH", f"{other.parent}{os.pathsep}{os.environ['PATH']}")
    assert installing.server_command() == [str(other), "serve"]  # better than none
    install()
    private = [str(own_server.home.python), "-I", "-m", "sfserver", "serve"]
    assert installing.server_command() == private
    preferences.environment = str(other.parent.parent)
    assert installing.server_command() == [str(other), "serve"]
    preferences.environment, preferences.command = "", f"{other} serve --port 5000"
    assert installing.server_command() == [str(other), "serve", "--port", "5000"]
    preferences.command = "sfserver serve --workers 2"
    assert installing.server_command() == [*private, "--workers", "2"]
    monkeypatch.setenv("PATH", "")
    own_server.home.receipt.unlink()
    with pytest.raises(server.CannotStart, match="was broken off: continue it"):
        installing.server_command()


def test_blender_is_asked_whether_it_may_go_online_and_nothing_begins_without_a_press(own_server, preferences):
    assert not bpy.app.online_access
    assert bpy.ops.inbetween.install_server.poll()  # a folder needs no network
    preferences.source = ""
    assert not bpy.ops.inbetween.install_server.poll()
    assert "Blender may not go online" in page().said()
    assert not bpy.ops.inbetween.fetch_model.poll()
    assert not own_server.home.folder.exists()  # drawing and asking leave no trace


def test_the_page_says_what_it_costs_and_offers_what_can_be_done(own_server, preferences, tmp_path):
    layout = page()
    assert "Downloads up to 0." in layout.said()
    assert "GB are free" in layout.said()
    assert layout.texts("operator") == ["inbetween.install_server"]
    bpy.ops.inbetween.install_server()
    assert page().texts("operator") == ["inbetween.cancel_installing"]
    assert page().texts("progress") == ["Looking at what has come"]
    assert bpy.ops.inbetween.cancel_installing() == {"FINISHED"}
    b.turn_until(lambda: not own_server.busy)
    assert "Cancelled: what was downloaded is kept" in page().said()
    install()
    layout = page()
    assert "sfserver 0.1.0 is installed" in layout.said()
    assert layout.texts("operator") == ["inbetween.remove_server"]
    wheels.put_payload(tmp_path / "zip", version="0.2.0")
    layout = page()
    assert "brings another, 0.2.0" in layout.said()
    assert layout.texts("operator") == ["inbetween.install_server", "inbetween.remove_server"]


def test_what_went_wrong_stands_on_the_page_with_the_log(own_server, preferences, tmp_path):
    preferences.source = str(wheels.put_heavy(tmp_path / "bad", extra="raise ImportError('no DLL')\n"))
    bpy.ops.inbetween.install_server()
    b.turn_until(lambda: not own_server.busy)
    layout = page()
    assert "cannot be loaded (no DLL)" in layout.said()
    assert "inbetween.open_install_log" in layout.texts("operator")


def test_nothing_is_changed_under_a_server_that_runs(own_server, preferences, fake, monkeypatch):
    install()
    monkeypatch.setattr(b.module("runtime").server, "_process", SimpleNamespace(pid=1, poll=lambda: None))
    assert not bpy.ops.inbetween.install_server.poll()
    assert not bpy.ops.inbetween.remove_server.poll()
    monkeypatch.undo()


def test_models_are_listed_with_what_is_missing_and_brought_by_a_press(own_server, monkeypatch, fake):
    install()
    fake.behave(engine={"available": False, "missing": ["weights"], "licence": "CC BY-NC 4.0"})
    b.connect()
    monkeypatch.setattr(b.module("install_operators"), "_may_go_online", lambda cls: True)
    assert page().texts("operator") == ["inbetween.remove_server", "inbetween.fetch_model"]
    dialog, layout = SimpleNamespace(engine="auto"), Layout()
    dialog.layout = layout
    b.module("install_operators").INBETWEEN_OT_fetch_model.draw(dialog, None)
    assert "Licence: CC BY-NC 4.0" in layout.said()
    assert "By going on you say that the licence suits your use" in layout.said()
    engine = b.module("runtime").pump().welcome.engines[0].id
    assert bpy.ops.inbetween.fetch_model(engine=engine) == {"FINISHED"}
    b.turn_until(lambda: not own_server.busy)
    assert (own_server.problem, own_server.fetched) == ("", engine)
    assert "Stop and start the server, then it has the new model" in page().said()


def test_switched_off_the_extension_takes_its_installation_with_it(own_server, preferences):
    bpy.ops.inbetween.install_server()
    process = own_server._errand._process
    bpy.ops.preferences.addon_disable(module=b.PACKAGE)
    assert process.poll() is not None
    bpy.ops.preferences.addon_enable(module=b.PACKAGE)
