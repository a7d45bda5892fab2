"""What the sidebar says and where, drawn onto a layout that notes everything; and what drawing costs, in calls."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import bpy
import in_blender as b
import pytest


class Layout:
    """Notes what is drawn, in order, as (kind, text, enabled)."""

    def __init__(self, notes=None, parent=None):
        object.__setattr__(self, "notes", [] if notes is None else notes)
        object.__setattr__(self, "parent", parent)
        object.__setattr__(self, "enabled", True)

    def __setattr__(self, name, value):
        known = bpy.types.UILayout.bl_rna.properties
        assert name in known, f"Blender's layout has no {name}"
        object.__setattr__(self, name, value)

    def _inside(self, **how):
        return Layout(self.notes, self)

    row = column = box = split = _inside

    def separator(self):
        pass

    def _note(self, kind, text):
        enabled, layout = True, self
        while layout is not None:
            enabled, layout = enabled and layout.enabled, layout.parent
        self.notes.append((kind, text, enabled))

    def label(self, **how):
        check("label", how)
        self._note("label", how["text"])

    def prop(self, owner, name, **how):
        check("prop", how)
        owner.path_resolve(name)
        self._note("prop", name)

    def progress(self, **how):
        check("progress", how)
        self._note("progress", how["text"])

    def operator(self, name, **how):
        check("operator", how)
        self._note("operator", name)
        return SimpleNamespace()

    def texts(self, kind="label"):
        return [text for noted, text, _ in self.notes if noted == kind]

    def said(self):
        return " ".join(self.texts())


def check(function, how):
    assert set(how) <= set(bpy.types.UILayout.bl_rna.functions[function].parameters.keys()), how


def draw(name):
    """Draw a panel as Blender would, if its poll lets it."""
    panel = getattr(b.module("panel"), f"INBETWEEN_PT_{name}")
    context = SimpleNamespace(
        scene=bpy.context.scene,
        preferences=SimpleNamespace(system=SimpleNamespace(ui_scale=1.0)),
        region=SimpleNamespace(width=100000),
    )
    if hasattr(bpy.context.workspace, "sequencer_scene"):
        context.sequencer_scene = bpy.context.workspace.sequencer_scene
    layout = Layout()
    if not hasattr(panel, "poll") or panel.poll(context):
        helpers = {key: value for key, value in vars(panel).items() if key.startswith("_draw") or key == "_lines"}
        drawn = type("Drawn", (), helpers)()
        drawn.layout = layout
        panel.draw(drawn, context)
    return layout


@pytest.fixture
def pump(scene, fake, tmp_path):
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "edit.blend"))
    b.two_pictures(scene, tmp_path)
    return b.connect()


def test_prompt_and_button_stand_first_whatever_is_said(scene, pump):
    heads = set()
    for message in ("", "something went wrong"):
        pump.message = message
        for names in (("A", "B"), ("A",), ()):
            b.select(scene, *names)
            heads.add(tuple(draw("fill").notes[:2]))
    assert heads == {(("prop", "prompt", True), ("operator", "inbetween.fill_gap", True))}
    pump.message = "something went wrong"
    assert draw("fill").notes[-1][1] == "something went wrong"


def test_an_engine_that_reads_no_prompt_greys_it_and_hides_the_seed(scene, pump, fake):
    assert ("prop", "prompt", True) in draw("fill").notes
    assert "seed" in draw("settings").texts("prop")
    fake.behave(engine={"uses_prompt": False})
    pump = b.connect()
    assert ("prop", "prompt", False) in draw("fill").notes
    assert "seed" not in draw("settings").texts("prop")
    assert pump.engine("auto").uses_prompt is False


def test_that_prompts_are_not_read_is_said_of_texts_on_the_timeline_too(scene, pump, fake):
    text = b.put_effect(scene, "TEXT", 3, 6, 10, "words")
    text.text = "it rains"
    assert "does not read prompts" not in draw("fill").said()
    fake.behave(engine={"uses_prompt": False})
    b.connect()
    assert "Fake does not read prompts" in draw("fill").said()
    text.mute = True
    assert "does not read prompts" not in draw("fill").said()
    scene.inbetween.prompt = "it snows"
    assert "Fake does not read prompts" in draw("fill").said()


def test_a_frame_that_waits_for_this_side_is_on_its_way(scene, pump, fake):
    fill = b.fill()
    fill.to_look_at.clear()
    progress = SimpleNamespace(stage="waiting", step=1, of=2)
    fill.final.stream = SimpleNamespace(interrupted=None, progress=progress, position=0)
    assert fill.stage == "Receiving"
    fill.final.stream = None


def test_the_queue_says_each_number_once(scene, pump, fake):
    fake.behave(hold_at=5)
    fill = b.fill()
    b.turn_until(lambda: len(fill.names) == 4)
    layout = draw("queue")
    assert layout.texts("progress") == ["4 of 12 frames"]
    assert "of 12" not in layout.said()
    assert "5" not in layout.said().replace("50", "")


def test_a_queue_position_is_a_sentence(scene, pump):
    fill = b.fill()
    fill.to_look_at.clear()
    fill.final.stream = SimpleNamespace(interrupted=None, progress=None, position=1)
    assert fill.stage == "Waiting behind 1 other"
    fill.final.stream = None


def test_the_strips_panel_names_the_engine_by_its_title_and_offers_what_can_be_done(scene, pump):
    b.fill()
    b.turn_until(lambda: not pump.fills)
    b.select(scene, b.ours(scene)[0].name)
    layout = draw("strip")
    assert layout.notes[0][:2] == ("prop", '["inbetween_prompt"]')
    assert any(line.startswith("Fake, Seed") for line in layout.texts())
    assert any(line.endswith("MB on disk") for line in layout.texts())
    offered = {"new_take", "use_settings", "open_folder", "discard"}
    assert offered == {name.removeprefix("inbetween.") for name in layout.texts("operator")}
    assert bpy.ops.inbetween.new_take() == {"FINISHED"}
    b.turn_until(lambda: not pump.fills)
    assert "Take 2 of 2" in draw("strip").said()
    assert draw("strip").texts("operator").count("inbetween.show_take") == 2


def test_the_strips_panel_says_what_the_engine_saw_and_how_far_the_final_has_come(scene, pump, fake):
    fake.behave(drafts=True, hold_at=5, found="a camera that pans")
    pump = b.connect()
    fill = b.fill()
    b.turn_until(lambda: fill.final_frames == 4 and len(fill.names) == 12)
    b.turn()
    assert draw("queue").texts("progress") == ["4 of 12 frames"]
    bpy.ops.inbetween.cancel()
    b.turn_until(lambda: not pump.fills)
    b.select(scene, b.ours(scene)[0].name)
    said = draw("strip").said()
    assert "4 of 12 frames, then 8 of a draft, 64 x 36 px" in said
    assert "Seen in the keyframes: a camera that pans" in said


def test_what_a_stranger_wrote_on_a_strip_is_drawn_without_a_word_of_python(scene, pump):
    b.fill()
    b.turn_until(lambda: not pump.fills)
    strip = b.ours(scene)[0]
    b.select(scene, strip.name)
    for name in ("frames", "frames_wanted", "draft_frames", "kilobytes"):
        strip["inbetween"][name] = "many"
    assert "0 frames, 64 x 36 px" in draw("strip").said()
    assert list(b.module("overlay").bars(scene)) == []


def test_a_selection_that_is_too_much_for_one_clip_leads_to_fill_all_gaps(scene, pump, fake, tmp_path):
    fake.behave(engine={"max_frames": 20})
    b.connect()
    b.put_image(scene, tmp_path / "A.png", 35, 5, name="C")
    b.select(scene, "A", "B", "C")
    assert "which fills each gap by itself" in draw("fill").said()
    assert "Fill All Gaps: 2 gaps, 24 frames" in draw("fill").said()
    b.select(scene, "A", "B")
    assert "Fill All Gaps" not in draw("fill").said()
    assert bpy.ops.inbetween.fill_gap.poll()


def test_what_goes_along_of_the_motion_is_said_before_the_press(scene, pump, tmp_path):
    assert "The motion goes on" not in draw("fill").said()
    for _ in range(2):
        b.strips(scene)["A"].elements.append("B.png")
    assert "The motion goes on: 5 frames before and 1 after go along" in draw("fill").said()
    scene.inbetween.motion = False
    assert "The motion goes on" not in draw("fill").said()


def test_the_draft_can_be_switched_off_where_there_is_one(scene, pump, fake):
    fake.behave(drafts=True)
    b.connect()
    assert "draft_first" in draw("settings").texts("prop")
    scene.inbetween.engine_id = "draft"
    assert "draft_first" not in draw("settings").texts("prop")


def test_no_button_has_blenders_own_word_for_something_else():
    panels, operators = b.module("panel"), b.module("take_operators")
    labels = [cls.bl_label for cls in (*panels.CLASSES, *operators.CLASSES, *b.module("operators").CLASSES)]
    assert not {"Redo", "Undo", "Repeat Last"} & set(labels)


def test_this_strip_stands_right_under_the_queue():
    panels = sorted(b.module("panel").CLASSES, key=lambda panel: panel.bl_order)
    names = [panel.__name__ for panel in panels]
    assert names.index("INBETWEEN_PT_strip") == names.index("INBETWEEN_PT_queue") + 1


def test_texts_go_through_blenders_translations_before_numbers_are_put_in(scene, pump, fake, monkeypatch):
    """The wheels have no language but English: the function that translates is looked at instead."""
    fake.behave(hold_at=1)
    b.fill()
    words = {"{} of {} frames": "{} von {} Bildern", "Waiting": "Wartet", "Connected": "Verbunden"}
    for page in ("panel", "lines"):
        monkeypatch.setattr(b.module(page), "iface_", lambda text: words.get(text, text))
    assert draw("queue").texts("progress") == ["0 von 12 Bildern"]
    pump.message = "Waiting"
    assert draw("fill").texts()[-1] == "Wartet"


def calls_to_draw(scene):
    """Function calls, Python's and C's, that drawing every panel once and asking every poll takes."""
    counted = 0

    def count(frame, event, argument):
        nonlocal counted
        counted += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        for name in ("fill", "queue", "strip", "server", "settings", "disk"):
            draw(name)
        for name in ("fill_gap", "fill_all_gaps", "new_take", "show_take"):
            getattr(bpy.ops.inbetween, name).poll()
    finally:
        sys.setprofile(None)
    return counted


def test_drawing_costs_as_many_calls_with_1500_strips_as_with_a_few(scene, pump, tmp_path, monkeypatch):
    b.fill()
    b.turn_until(lambda: not pump.fills)
    b.select(scene, b.ours(scene)[0].name)
    scene.frame_current = 9
    few = calls_to_draw(scene)
    for i in range(1500):
        b.put_image(scene, tmp_path / "A.png", 200 + 6 * i, 3, channel=1 + i % 2, name=f"other {i}")
    b.select(scene, b.ours(scene)[0].name)
    assert calls_to_draw(scene) <= few + 40  # a second channel is looked at by itself


def test_drawing_makes_no_record_and_no_id(scene, pump, monkeypatch):
    b.fill()
    b.turn_until(lambda: not pump.fills)
    monkeypatch.setattr(b.module("begin"), "uuid4", None)
    for names in (("A", "B"), ()):
        b.select(scene, *names)
        monkeypatch.setattr(b.module("written"), "from_properties", None)
        calls_to_draw(scene)
    b.select(scene, b.ours(scene)[0].name)
    calls_to_draw(scene)
