"""Random sequences of what users, servers and Blender do: after each the strips are whole and nothing has crashed."""

from __future__ import annotations

import os
import random
import time

import bpy
import in_blender as b
import pytest

SEQUENCES = int(os.environ.get("INBETWEEN_SEQUENCES", "200"))
ACTIONS = 8
SEED = int(os.environ.get("INBETWEEN_SEED", time.time_ns() % 10**6))


class World:
    """One sequence: its random numbers and what it may do. Nothing of Blender's is kept from one action to the next."""

    def __init__(self, seed, fake, folder):
        self.random = random.Random(seed)
        self.fake = fake
        self.folder = folder
        self.pump = b.module("runtime").pump()
        self.log = []

    @property
    def scene(self):
        return bpy.data.scenes["Scene"]

    def strips(self):
        return b.ours(self.scene)

    def one(self):
        return self.random.choice(self.strips()) if self.strips() else None

    def act(self):
        name = self.random.choice(sorted(ACTIONS_BY_NAME))
        self.log.append(name)
        ACTIONS_BY_NAME[name](self)

    def fill(self):
        b.select(self.scene, *self.random.sample(["A", "B", "C", "D"], 2))
        if bpy.ops.inbetween.fill_gap.poll():
            bpy.ops.inbetween.fill_gap("EXEC_DEFAULT", True)

    def fill_all(self):
        b.select(self.scene, "A", "B", "C", "D")
        if bpy.ops.inbetween.fill_all_gaps.poll():
            bpy.ops.inbetween.fill_all_gaps("EXEC_DEFAULT", True)

    def redo_take(self):
        strip = self.one()
        if strip is not None:
            b.select(self.scene, strip.name)
            if bpy.ops.inbetween.new_take.poll():
                bpy.ops.inbetween.new_take("EXEC_DEFAULT", True, new_seed=self.random.random() < 0.5)

    def cancel(self):
        if self.pump.fills:
            bpy.ops.inbetween.cancel(job=self.random.choice(["", self.random.choice(self.pump.fills).job]))

    def discard(self):
        strip = self.one()
        if strip is not None:
            b.select(self.scene, strip.name)
            if bpy.ops.inbetween.discard.poll():
                bpy.ops.inbetween.discard("EXEC_DEFAULT", True)

    def delete(self):
        strip = self.one()
        if strip is not None:
            b.strips(self.scene).remove(strip)
            bpy.ops.ed.undo_push(message="delete")

    def move(self):
        strip = self.one()
        if strip is not None:
            name = "content_start" if hasattr(strip, "content_start") else "frame_start"
            setattr(strip, name, strip.path_resolve(name) + self.random.randint(-20, 60))

    def trim(self):
        strip = self.one()
        if strip is not None:
            b.module("sequencer").set_frames(strip, self.random.randint(1, 6))

    def rename(self):
        strip = self.one()
        if strip is not None:
            strip.name = self.random.choice(["x", "In-Between", "A"])

    def guest(self):
        b.put_image(
            self.scene, self.folder / "A.png", self.random.randint(1, 70), self.random.randint(1, 9), 2, "guest"
        )

    def push(self):
        bpy.ops.ed.undo_push(message="an edit")

    def undo(self):
        if bpy.ops.ed.undo.poll():
            bpy.ops.ed.undo()

    def redo(self):
        if bpy.ops.ed.redo.poll():
            bpy.ops.ed.redo()

    def save(self):
        bpy.ops.wm.save_mainfile()

    def load(self):
        bpy.ops.wm.open_mainfile(filepath=str(self.folder / "edit.blend"))

    def hold(self):
        held = self.random.choice([None, 1, 3]), self.random.choice([None, None, 4])
        self.fake.behave(hold_at=held[0], draft_hold_at=held[1])

    def fail(self):
        failing = self.random.choice([None, 2]), self.random.choice([None, None, 3])
        self.fake.behave(fail_at=failing[0], draft_fail_at=failing[1], retryable=False)

    def wait(self):
        b.turn_for(self.random.choice([0.0, 0.01, 0.05]))

    def render(self):
        b.captured(self.scene, self.random.randint(1, 60), 64, 36, keep_as=self.folder / "shot.tga")

    def other_scene(self):
        bpy.context.window.scene = self.random.choice(list(bpy.data.scenes))


HARMLESS = {"hold_at": None, "fail_at": None, "draft_hold_at": None, "draft_fail_at": None}
NOT_ACTIONS = {"__init__", "scene", "strips", "one", "act"}
ACTIONS_BY_NAME = {name: value for name, value in vars(World).items() if callable(value) and name not in NOT_ACTIONS}


def draw_base(scene, folder):
    """The file that every sequence begins with: four strips with gaps, a second scene."""
    b.two_pictures(scene, folder, gap=7)
    for name, start in (("C", 25), ("D", 40)):
        b.put_image(scene, folder / "A.png", start, 4, name=name)
    bpy.data.scenes.new("Other").sequence_editor_create()
    bpy.ops.wm.save_as_mainfile(filepath=str(folder / "base.blend"))


def fresh_world(seed, fake, folder):
    fake.behave(**HARMLESS)
    bpy.ops.wm.open_mainfile(filepath=str(folder / "base.blend"))
    bpy.ops.wm.save_as_mainfile(filepath=str(folder / "edit.blend"))
    bpy.ops.ed.undo_push(message="begin")
    return World(seed, fake, folder)


@pytest.mark.timeout(500)
def test_no_sequence_of_actions_leaves_a_hole_or_a_locked_strip(scene, fake, tmp_path):
    fake.behave(frame_s=0.0005, drafts=True)
    draw_base(scene, tmp_path)
    b.connect()
    for number in range(SEQUENCES):
        seed = SEED + number
        world = fresh_world(seed, fake, tmp_path)
        world.scene.inbetween.draft_first = seed % 2 == 0
        try:
            for _ in range(ACTIONS):
                world.act()
                b.turn()
            fake.behave(**HARMLESS)
            b.turn_until(lambda world=world: not world.pump.fills)
            b.turn()
            check(world)
        except Exception as error:
            pytest.fail(f"INBETWEEN_SEED={seed}: {' '.join(world.log)}: {error!r}")


def check(world):
    for strip in world.strips():
        assert not strip.lock, f"{strip.name} is locked"
        names = b.names_of(strip)
        sheet = b.module("record").from_properties(strip["inbetween"].to_dict()).sheet()
        given = {index for index, _ in sheet.keys}
        shown = sheet.shown[: len(names)]
        finals = sum(not name.startswith("draft_") for name in names)
        kinds = ["frame"] * finals + ["draft"] * (len(names) - finals)
        whole = [
            f"keyframe_{i:05d}.tga" if i in given else f"{kind}_{i:05d}.png"
            for i, kind in zip(shown, kinds, strict=True)
        ]
        assert names in (whole, ["waiting.png"]), f"{strip.name} has {names}"
        folder = bpy.path.abspath(strip.directory)
        if strip["inbetween_job"] in world.pump.ended:
            assert all(os.path.exists(os.path.join(folder, name)) for name in names), f"{strip.name} misses files"
