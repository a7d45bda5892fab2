"""Frames stay with their film: a folder that is copied or moved, a first save, another file that shows them too."""

from __future__ import annotations

import shutil
from pathlib import Path

import bpy
import in_blender as b
import pytest

GAP = 4


@pytest.fixture
def pump(scene, fake):
    return b.connect()


def fill_whole(scene, pump, folder):
    b.two_pictures(scene, folder, gap=GAP)
    b.fill()
    b.turn_until(lambda: not pump.fills)


def files_of(strip):
    folder = Path(bpy.path.abspath(strip.directory))
    return [folder / element.filename for element in strip.elements]


def all_there(scene):
    return len(b.ours(scene)) == 1 and all(path.is_file() for path in files_of(b.ours(scene)[0]))


def test_a_project_folder_that_is_moved_after_a_plain_save_keeps_its_frames(scene, pump, tmp_path):
    project = tmp_path / "project"
    project.mkdir()
    bpy.ops.wm.save_as_mainfile(filepath=str(project / "edit.blend"))
    fill_whole(scene, pump, tmp_path)
    bpy.ops.wm.save_mainfile()
    b.fresh_scene()
    project.rename(tmp_path / "moved")
    bpy.ops.preferences.addon_disable(module=b.PACKAGE)  # a farm renders without it
    bpy.ops.wm.open_mainfile(filepath=str(tmp_path / "moved" / "edit.blend"))
    try:
        assert all_there(bpy.context.scene)
    finally:
        bpy.ops.preferences.addon_enable(module=b.PACKAGE)


def test_full_paths_of_an_older_file_become_relative_when_it_is_saved(scene, pump, tmp_path):
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "edit.blend"))
    fill_whole(scene, pump, tmp_path)
    strip = b.ours(scene)[0]
    strip.directory = bpy.path.abspath(strip.directory)
    bpy.ops.wm.save_mainfile()
    assert strip.directory.startswith("//inbetween")


def test_full_paths_to_a_folder_that_has_moved_are_found_again(scene, pump, tmp_path):
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "edit.blend"))
    fill_whole(scene, pump, tmp_path)
    strip = b.ours(scene)[0]
    strip.directory = str(tmp_path / "gone" / "inbetween" / strip["inbetween_job"])
    bpy.ops.wm.save_mainfile()
    bpy.ops.wm.open_mainfile(filepath=str(tmp_path / "edit.blend"))
    assert all_there(bpy.context.scene)
    assert b.ours(bpy.context.scene)[0].directory.startswith("//inbetween")


def saved_first(scene, pump, folder, **how):
    fill_whole(scene, pump, folder)
    before = files_of(b.ours(scene)[0])
    (folder / "project").mkdir()
    bpy.ops.wm.save_as_mainfile(filepath=str(folder / "project" / "edit.blend"), **how)
    return before


@pytest.mark.parametrize("relative_remap", [True, False])
def test_the_first_save_brings_frames_beside_the_file(scene, pump, tmp_path, relative_remap):
    saved_first(scene, pump, tmp_path, relative_remap=relative_remap)
    assert "brought beside the file" in b.module("runtime").notice
    strip = b.ours(scene)[0]
    assert strip.directory.startswith("//inbetween")
    assert files_of(strip)[0].parent.parent == tmp_path / "project" / "inbetween"
    b.fresh_scene()
    (tmp_path / "project").rename(tmp_path / "moved")
    for parent in b.module("keep").user_parents():
        shutil.rmtree(parent / "inbetween", ignore_errors=True)
    bpy.ops.wm.open_mainfile(filepath=str(tmp_path / "moved" / "edit.blend"))
    assert all_there(bpy.context.scene)


def test_frames_of_an_unsaved_file_outlive_the_extension(scene, pump, tmp_path):
    fill_whole(scene, pump, tmp_path)
    private = Path(bpy.utils.extension_path_user(b.PACKAGE))
    assert all_there(scene)
    assert not any(path.is_relative_to(private) for path in files_of(b.ours(scene)[0]))


def test_what_a_first_save_brought_stays_where_another_file_may_show_it(scene, pump, tmp_path):
    before = saved_first(scene, pump, tmp_path)
    assert all(path.is_file() for path in before)
    assert bpy.ops.inbetween.clean_unused(unsaved=True) == {"FINISHED"}  # only a press of the user's ends them
    assert not any(path.exists() for path in before)
    assert all_there(scene)


def test_a_first_save_in_mid_stream_takes_the_frames_along(scene, pump, fake, tmp_path):
    fake.behave(hold_at=3)
    b.two_pictures(scene, tmp_path, gap=GAP)
    fill = b.fill()
    b.turn_until(lambda: len(fill.names) == 2)
    (tmp_path / "project").mkdir()
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "project" / "edit.blend"))
    fake.behave(hold_at=None)
    b.turn_until(lambda: not pump.fills)
    assert len(files_of(b.ours(scene)[0])) == GAP
    assert all_there(scene)
    assert files_of(b.ours(scene)[0])[0].is_relative_to(tmp_path / "project")


def test_an_undo_after_the_first_save_shows_the_frames_beside_the_file(scene, pump, tmp_path):
    fill_whole(scene, pump, tmp_path)
    bpy.ops.ed.undo_push(message="filled")
    scene.frame_current = 7
    bpy.ops.ed.undo_push(message="an edit")
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "edit.blend"))
    bpy.ops.ed.undo()
    b.turn()
    assert b.ours(bpy.context.scene)[0].directory.startswith("//inbetween")
    assert all_there(bpy.context.scene)


def test_nothing_beside_the_file_is_overwritten(scene, pump, tmp_path):
    fill_whole(scene, pump, tmp_path)
    there = tmp_path / "project" / "inbetween" / b.ours(scene)[0]["inbetween_job"] / "frame_00002.png"
    there.parent.mkdir(parents=True)
    there.write_bytes(b"mine")
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "project" / "edit.blend"))
    assert there.read_bytes() == b"mine"
    assert (there.parent / "frame_00001.png").stat().st_size > 4


def test_a_disk_that_refuses_leaves_the_frames_where_they_are_and_says_so(scene, pump, tmp_path):
    fill_whole(scene, pump, tmp_path)
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "inbetween").write_text("a file where the folder should be")
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "project" / "edit.blend"))
    assert "stay where they are" in b.module("runtime").notice
    assert all_there(scene)


def test_discard_after_a_save_elsewhere_says_that_the_other_files_frames_stay(scene, pump, tmp_path, capfd):
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "one" / "edit.blend"))
    fill_whole(scene, pump, tmp_path)
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "two" / "edit.blend"))
    strip = b.ours(scene)[0]
    paths = files_of(strip)
    b.select(scene, strip.name)
    assert bpy.ops.inbetween.discard() == {"FINISHED"}
    assert all(path.is_file() for path in paths)
    assert "another file may use them" in capfd.readouterr().out


def test_what_a_save_said_is_gone_with_the_next_save_and_with_the_extension(scene, pump, tmp_path):
    runtime = b.module("runtime")
    saved_first(scene, pump, tmp_path)
    assert runtime.notice
    bpy.ops.wm.save_mainfile()
    assert runtime.notice == ""
    runtime.notice = "of an earlier file"
    bpy.ops.preferences.addon_disable(module=b.PACKAGE)
    bpy.ops.preferences.addon_enable(module=b.PACKAGE)
    assert runtime.notice == ""
