"""A .blend from anywhere starts nothing, connects nowhere, deletes nothing; ours gives nothing of this machine away."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

import bpy
import in_blender as b
import pytest

HOSTILE_RECORDS = [
    {},
    {"job": "../../../etc"},
    {"job": 7, "frames_wanted": "many"},
    {"job": "a" * 32, "frames_wanted": 3, "width": 64, "height": 36, "seed": -1, "engine": "fake"},
    {"job": "a" * 32, "frames_wanted": 3, "width": 64, "height": 36, "seed": 1, "engine": "x", "params": "[" * 9000},
    {"job": "a" * 32, "frames_wanted": 3, "width": 64, "height": 36, "seed": 1, "engine": "x", "params": "[1]"},
    {"job": "a" * 32, "frames_wanted": 3, "width": 64, "height": 36, "seed": 1, "engine": "x", "state": "evil"},
    {"job": "a" * 32, "frames_wanted": 2**31 - 1, "width": 9**9, "height": 9**9, "seed": 1, "engine": "fake"},
    {"job": "a" * 32, "frames_wanted": -5, "width": 0, "height": 0, "seed": 1, "engine": "fake"},
]


@pytest.mark.parametrize("record", HOSTILE_RECORDS, ids=range(len(HOSTILE_RECORDS)))
def test_no_record_makes_an_operator_crash_or_a_file_disappear(scene, fake, tmp_path, capfd, record):
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "edit.blend"))
    b.two_pictures(scene, tmp_path)
    victim = tmp_path / "inbetween" / ("b" * 32) / "frame_00001.png"
    victim.parent.mkdir(parents=True)
    victim.write_bytes(b"x")
    strip = b.strips(scene)["A"]
    strip["inbetween_job"], strip["inbetween"] = record.get("job", {"a": 1}), record
    b.select(scene, "A")
    bpy.ops.wm.save_mainfile()
    bpy.ops.wm.open_mainfile(filepath=str(tmp_path / "edit.blend"))
    b.connect()
    for operator in (bpy.ops.inbetween.new_take, bpy.ops.inbetween.discard):
        with suppress(RuntimeError):  # refused, by poll or with a sentence: both are fine
            operator()
    assert "Traceback" not in capfd.readouterr().err
    b.turn_for(0.05)
    assert victim.exists()
    assert b.module("runtime").pump().fills == []


def test_a_job_that_points_through_a_link_is_not_deleted(scene, tmp_path):
    frames, job = b.module("frames"), "c" * 32
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "frame_00001.png").write_bytes(b"x")
    (tmp_path / "inbetween").mkdir()
    (tmp_path / "inbetween" / job).symlink_to(outside)
    assert frames.delete_folder(tmp_path, job) == 0
    assert frames.jobs_on_disk(tmp_path) == {}
    assert (outside / "frame_00001.png").exists()


def test_values_of_the_wrong_kind_fall_back_to_the_engines_defaults(scene, fake, tmp_path):
    values = scene.inbetween.parameters
    values["fake.strength"], values["fake.passes"], values["fake.style"] = "text", 10**6, -3
    values["fake.smooth"] = {"a": 1}
    pump = b.connect()
    scene.inbetween.engine_id = "fake"
    chosen = b.module("settings").chosen_parameters(scene, pump.engine("fake"))
    assert chosen == {"strength": 0.5, "passes": 8, "smooth": True, "style": "plain"}


def test_opening_a_file_that_was_saved_in_mid_stream_connects_nowhere(scene, fake, tmp_path):
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "edit.blend"))
    fake.behave(hold_at=5)
    b.two_pictures(scene, tmp_path)
    b.connect()
    fill = b.fill()
    b.turn_until(lambda: len(fill.names) >= 3)
    bpy.ops.wm.save_mainfile()
    b.fresh_scene()
    bpy.ops.preferences.addon_disable(module=b.PACKAGE)
    bpy.ops.preferences.addon_enable(module=b.PACKAGE)
    bpy.ops.wm.open_mainfile(filepath=str(tmp_path / "edit.blend"))
    runtime = b.module("runtime")
    assert runtime.running_pump() is None
    assert not runtime.server.running


def test_a_saved_file_holds_no_key_no_endpoint_and_no_command(scene, fake, tmp_path):
    preferences = bpy.context.preferences.addons[b.PACKAGE].preferences
    preferences.command = "/secret/place/sfserver serve"
    preferences.environment = "/secret/environment"
    try:
        bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "edit.blend"), compress=False)
        b.two_pictures(scene, tmp_path, gap=6)
        scene.inbetween.prompt = "needle in the haystack"
        pump = b.connect()
        fake.behave(hold_at=4)
        b.fill()
        b.turn_until(lambda: len(pump.fills[0].names) == 3)
        bpy.ops.wm.save_mainfile(compress=False)
    finally:
        preferences.property_unset("command")
        preferences.property_unset("environment")
    content = Path(tmp_path / "edit.blend").read_bytes()
    assert content[:7] == b"BLENDER"
    assert b"needle in the haystack" in content  # the control: what is in the file is found
    connection = json.loads(b.CONNECTION_FILE.read_text())
    secrets = [str(connection[name]) for name in connection if name.endswith("key") or name == "endpoint"]
    secrets += ["/secret", connection["endpoint"].rsplit("/", 1)[-1], "connection.json", str(b.CONNECTION_FILE)]
    for secret in secrets:
        assert secret.encode() not in content
