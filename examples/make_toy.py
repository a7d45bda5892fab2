"""Renders the 3D pair, toy_start.png and toy_end.png: a tin robot waves, turns its head and lets a ball roll.

    python3.11 -m venv render && render/bin/pip install bpy==4.5.15
    render/bin/python examples/make_toy.py

A few minutes for each picture on two cores. Licence of this script and of both pictures: CC0, see LICENSE.
"""

import math
import sys
from pathlib import Path

import bpy
from mathutils import Euler, Matrix, Vector

HERE = Path(__file__).parent
SIZE_PX = (832, 480)
SAMPLES = 64
POSES = {
    "toy_start": {"head": -13, "lift": 20, "elbow": 30, "lean": -1.5, "roll": -0.04, "orbit": -1.4},
    "toy_end": {"head": 11, "lift": 36, "elbow": 44, "lean": 1.5, "roll": 0.11, "orbit": 1.4},
}
"""Angles in degrees, the ball's way in metres. Kept to what an interpolation can follow: at most some 50 pixels."""

DISTANCE_M = 7.5
"""From the camera to the robot."""

CREAM, MINT, CORAL, NAVY = (0.86, 0.78, 0.62), (0.20, 0.52, 0.46), (0.84, 0.20, 0.12), (0.035, 0.06, 0.13)
MUSTARD, WOOD = (0.90, 0.52, 0.08), (0.62, 0.38, 0.19)


def material(name, colour, roughness=0.35, metallic=0.0, glow=0.0):
    made = bpy.data.materials.new(name)
    made.use_nodes = True
    surface = made.node_tree.nodes["Principled BSDF"]
    surface.inputs["Base Color"].default_value = (*colour, 1)
    surface.inputs["Roughness"].default_value = roughness
    surface.inputs["Metallic"].default_value = metallic
    if glow:
        surface.inputs["Emission Color"].default_value = (*colour, 1)
        surface.inputs["Emission Strength"].default_value = glow
    return made


def wood():
    """Stretched noise through a colour ramp: grain that gives the motion something to hold on to."""
    made = material("wood", WOOD, roughness=0.45)
    nodes, links = made.node_tree.nodes, made.node_tree.links
    where = nodes.new("ShaderNodeTexCoord")
    stretch = nodes.new("ShaderNodeMapping")
    stretch.inputs["Scale"].default_value = (1.2, 9, 9)
    noise = nodes.new("ShaderNodeTexNoise")
    noise.inputs["Scale"].default_value = 1.6
    noise.inputs["Detail"].default_value = 6
    ramp = nodes.new("ShaderNodeValToRGB")
    ramp.color_ramp.elements[0].position, ramp.color_ramp.elements[0].color = 0.35, (0.36, 0.18, 0.07, 1)
    ramp.color_ramp.elements[1].position, ramp.color_ramp.elements[1].color = 0.62, (0.66, 0.40, 0.19, 1)
    links.new(where.outputs["Object"], stretch.inputs["Vector"])
    links.new(stretch.outputs["Vector"], noise.inputs["Vector"])
    links.new(noise.outputs["Fac"], ramp.inputs["Fac"])
    links.new(ramp.outputs["Color"], nodes["Principled BSDF"].inputs["Base Color"])
    return made


def finish(thing, look, parent=None, bevel=0.0):
    """Give the newest object its material, rounded edges and parent; its place is relative to the parent."""
    thing.data.materials.append(look)
    for polygon in thing.data.polygons:
        polygon.use_smooth = True
    if bevel:
        edge = thing.modifiers.new("round", "BEVEL")
        edge.width, edge.segments = bevel, 5
        thing.modifiers.new("flat faces", "WEIGHTED_NORMAL")
    thing.parent = parent
    return thing


def box(size, at, look, parent=None, bevel=0.04):
    bpy.ops.mesh.primitive_cube_add(size=1)
    thing = bpy.context.object
    thing.data.transform(Matrix.Diagonal((*size, 1)))
    thing.location = at
    return finish(thing, look, parent, bevel)


def rod(radius, length, at, look, parent=None, turn=(0, 0, 0), bevel=0.015):
    bpy.ops.mesh.primitive_cylinder_add(radius=radius, depth=length, vertices=48)
    thing = bpy.context.object
    thing.location, thing.rotation_euler = at, Euler([math.radians(a) for a in turn])
    return finish(thing, look, parent, bevel)


def ball(radius, at, look, parent=None):
    bpy.ops.mesh.primitive_uv_sphere_add(radius=radius, segments=64, ring_count=32)
    thing = bpy.context.object
    thing.location = at
    return finish(thing, look, parent)


def joint(at, turn=(0, 0, 0), parent=None):
    thing = bpy.data.objects.new("joint", None)
    bpy.context.collection.objects.link(thing)
    thing.location, thing.rotation_euler = at, Euler([math.radians(a) for a in turn])
    thing.parent = parent
    return thing


def build_robot(pose):
    mint, cream, coral = material("mint", MINT, 0.3), material("cream", CREAM, 0.35), material("coral", CORAL, 0.3)
    steel, navy = material("steel", (0.55, 0.56, 0.58), 0.25, 1.0), material("navy", NAVY, 0.2)
    lamp = material("lamp", (1.0, 0.62, 0.18), glow=2.2)
    root = joint((-0.25, 0, 0), (0, 0, 6))
    for side in (-1, 1):
        box((0.30, 0.44, 0.15), (side * 0.22, -0.05, 0.075), coral, root, 0.06)
        rod(0.085, 0.34, (side * 0.22, 0, 0.29), steel, root)
    trunk = joint((0, 0, 0.42), (0, pose["lean"], 0), root)
    box((0.92, 0.60, 0.78), (0, 0, 0.40), mint, trunk, 0.09)
    box((0.58, 0.06, 0.36), (0, -0.30, 0.46), cream, trunk, 0.03)
    for n, look in enumerate((coral, material("mustard", MUSTARD), lamp)):
        rod(0.055, 0.05, (-0.16 + 0.16 * n, -0.34, 0.54), look, trunk, (90, 0, 0))
    box((0.40, 0.02, 0.04), (0, -0.335, 0.39), navy, trunk, 0.01)
    for side in (-1, 1):
        ball(0.14, (side * 0.50, 0, 0.62), steel, trunk)
    build_arm(trunk, -1, -58, -24, mint, steel, coral)
    build_arm(trunk, 1, -pose["lift"], -pose["elbow"], mint, steel, coral)
    rod(0.12, 0.12, (0, 0, 0.83), steel, trunk)
    head = joint((0, 0, 0.88), (0, 0, pose["head"]), trunk)
    box((0.78, 0.58, 0.52), (0, 0, 0.27), cream, head, 0.10)
    box((0.60, 0.06, 0.26), (0, -0.28, 0.31), navy, head, 0.04)
    for side in (-1, 1):
        ball(0.072, (side * 0.15, -0.30, 0.32), lamp, head)
        rod(0.11, 0.09, (side * 0.42, 0, 0.27), coral, head, (0, 90, 0))
    box((0.26, 0.03, 0.035), (0, -0.292, 0.115), coral, head, 0.012)
    rod(0.018, 0.24, (0, 0, 0.63), steel, head)
    ball(0.065, (0, 0, 0.77), coral, head)


def build_arm(trunk, side, shoulder, elbow, mint, steel, coral):
    upper = joint((side * 0.52, 0, 0.62), (0, shoulder, 0), trunk)
    rod(0.085, 0.34, (side * 0.24, 0, 0), mint, upper, (0, 90, 0))
    lower = joint((side * 0.46, 0, 0), (0, elbow, 0), upper)
    ball(0.10, (0, 0, 0), steel, lower)
    rod(0.075, 0.28, (side * 0.18, 0, 0), mint, lower, (0, 90, 0))
    hand = joint((side * 0.34, 0, 0), (0, 0, 0), lower)
    ball(0.115, (0, 0, 0), coral, hand)
    for angle in (-38, 0, 38):
        finger = joint((0, 0, 0), (0, angle, 0), hand)
        rod(0.036, 0.16, (side * 0.15, 0, 0), coral, finger, (0, 90, 0), 0.03)


def build_ball(pose):
    """Rolls without slipping: its turn is its way over its radius."""
    radius = 0.34
    looks = [material("ball", colour, 0.22) for colour in (CORAL, CREAM, MUSTARD, CREAM)]
    thing = ball(radius, (1.28 + pose["roll"], -0.42, radius), looks[0])
    for look in looks[1:]:
        thing.data.materials.append(look)
    for polygon in thing.data.polygons:
        turn = math.atan2(polygon.center.y, polygon.center.x) / math.tau % 1
        polygon.material_index = int(turn * 8) % 4
    tilt = Euler((math.radians(68), 0, math.radians(18))).to_matrix()
    roll = Euler((0, pose["roll"] / radius, 0)).to_matrix()
    thing.rotation_euler = (roll @ tilt).to_euler()


def build_set():
    grain = wood()
    box((9, 6, 0.2), (0, 0.6, -0.1), grain, bevel=0.02)
    box((14, 0.2, 7), (0, 4.2, 2.4), material("wall", (0.13, 0.26, 0.33), 0.9), bevel=0)
    blocks = [
        ((0.52, 0.52, 0.52), (-1.95, 0.75, 0.26), 12, MUSTARD),
        ((0.52, 0.52, 0.52), (-1.36, 1.10, 0.26), -20, CORAL),
        ((0.46, 0.46, 0.46), (-1.70, 0.90, 0.75), 33, CREAM),
        ((0.44, 0.44, 1.10), (1.75, 1.25, 0.55), 25, MINT),
    ]
    for size, at, turn, colour in blocks:
        thing = box(size, at, material("block", colour, 0.5), bevel=0.03)
        thing.rotation_euler.z = math.radians(turn)
    bpy.ops.mesh.primitive_cone_add(radius1=0.36, radius2=0, depth=0.42, vertices=64)
    roof = finish(bpy.context.object, material("roof", CORAL, 0.4))
    roof.location = (1.75, 1.25, 1.31)


def light_and_camera(pose):
    def area(at, towards, size, watts, colour):
        data = bpy.data.lights.new("area", "AREA")
        data.size, data.energy, data.color = size, watts, colour
        thing = bpy.data.objects.new("area", data)
        bpy.context.collection.objects.link(thing)
        thing.location = at
        thing.rotation_euler = (Vector(towards) - Vector(at)).to_track_quat("-Z", "Y").to_euler()

    area((-3.2, -3.0, 4.4), (0, 0, 0.7), 0.8, 470, (1.0, 0.86, 0.70))
    area((4.0, -2.2, 2.6), (0, 0, 0.8), 2.5, 110, (0.62, 0.78, 1.0))
    area((1.5, 3.2, 4.2), (-0.2, 0.4, 1.0), 1.5, 190, (1.0, 0.92, 0.84))
    world = bpy.data.worlds.new("world")
    world.use_nodes = True
    world.node_tree.nodes["Background"].inputs["Color"].default_value = (0.32, 0.36, 0.42, 1)
    world.node_tree.nodes["Background"].inputs["Strength"].default_value = 0.22
    bpy.context.scene.world = world
    lens = bpy.data.cameras.new("camera")
    lens.lens, lens.dof.use_dof, lens.dof.aperture_fstop = 58, True, 2.2
    camera = bpy.data.objects.new("camera", lens)
    bpy.context.collection.objects.link(camera)
    aim, angle = Vector((0.12, 0, 0.93)), math.radians(pose["orbit"])
    camera.location = aim + Vector((DISTANCE_M * math.sin(angle), -DISTANCE_M * math.cos(angle), 0.95))
    camera.rotation_euler = (aim - camera.location).to_track_quat("-Z", "Y").to_euler()
    lens.dof.focus_distance = DISTANCE_M - 0.3
    bpy.context.scene.camera = camera


def render(name, pose, samples):
    bpy.ops.wm.read_factory_settings(use_empty=True)
    build_set()
    build_robot(pose)
    build_ball(pose)
    light_and_camera(pose)
    scene = bpy.context.scene
    scene.render.engine = "CYCLES"
    scene.cycles.samples, scene.cycles.use_denoising, scene.cycles.seed = samples, True, 1
    scene.render.resolution_x, scene.render.resolution_y = SIZE_PX
    scene.render.resolution_percentage = 100
    scene.view_settings.view_transform, scene.view_settings.look = "AgX", "AgX - Medium High Contrast"
    scene.render.image_settings.file_format, scene.render.image_settings.color_mode = "PNG", "RGB"
    scene.render.image_settings.compression = 100
    scene.render.filepath = str(HERE / f"{name}.png")
    bpy.ops.render.render(write_still=True)


if __name__ == "__main__":
    samples = int(sys.argv[1]) if len(sys.argv) > 1 else SAMPLES
    for name, pose in POSES.items():
        render(name, pose, samples)
