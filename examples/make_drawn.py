"""Draws the 2D pair, drawn_start.png and drawn_end.png: a fox on a hill looks up while the wind takes her scarf.

    python examples/make_drawn.py

Pillow and numpy alone, a few seconds. Lines are strokes of a brush that presses and lifts, with the tremble of a hand;
colours are flat shapes that do not quite meet them. Licence of this script and of both pictures: CC0, see LICENSE.
"""

import math
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

HERE = Path(__file__).parent
SIZE_PX = (832, 480)
OVERSAMPLING = 4
INK, PAPER = (43, 35, 48), (250, 241, 222)
FUR, FUR_SHADE, CREAM = (226, 116, 50), (198, 92, 40), (252, 236, 208)
SCARF, SCARF_SHADE = (46, 120, 138), (34, 94, 112)
HILL, HILL_FAR, HILL_FARTHEST = (150, 176, 98), (176, 196, 138), (204, 214, 178)
SKY_TOP, SKY_LOW, SUN = (168, 208, 214), (250, 232, 196), (255, 246, 214)

POSES = {
    "drawn_start": {"head": 7.0, "nod": (0, 0), "tail": -6.0, "wind": 0.0, "bird": (0, 0), "flap": 0.0, "cloud": 0},
    "drawn_end": {"head": -9.0, "nod": (-4, -5), "tail": 9.0, "wind": 1.0, "bird": (46, -20), "flap": 1.0, "cloud": 16},
}
"""Degrees and pixels. Kept to what an interpolation can follow: at most some 50 pixels."""


def curve(points, closed=False, steps=14):
    """A Catmull-Rom spline through `points`, [N, 2]."""
    p = np.asarray(points, float)
    p = np.vstack([p[-1], p, p[:2]]) if closed else np.vstack([2 * p[0] - p[1], p, 2 * p[-1] - p[-2]])
    t = np.linspace(0, 1, steps, endpoint=False)[:, None]
    pieces = [
        0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3)
        for a, b, c, d in zip(p[:-3], p[1:-2], p[2:-1], p[3:], strict=True)
    ]
    return np.vstack([*pieces, p[-2][None]])


def turned(points, degrees, about, shift=(0, 0)):
    a = math.radians(degrees)
    turn = np.array([[math.cos(a), math.sin(a)], [-math.sin(a), math.cos(a)]])
    return (np.asarray(points, float) - about) @ turn + about + np.asarray(shift, float)


class Sheet:
    """A canvas whose coordinates are final pixels."""

    def __init__(self):
        self.image = Image.new("RGB", tuple(side * OVERSAMPLING for side in SIZE_PX), PAPER)
        self.pen = ImageDraw.Draw(self.image)

    def fill(self, outline, colour, slip=(0, 0)):
        """A flat shape; `slip` is how far the colour misses its line, as in a cheap print."""
        self.pen.polygon([tuple(q) for q in (np.asarray(outline) + slip) * OVERSAMPLING], fill=colour)

    def stroke(self, line, width=3.4, seed=0, colour=INK, ends=0.25):
        """A brush line: thin where it starts and ends, thicker on its way, with a tremble that belongs to `seed`."""
        rng = np.random.default_rng(seed)
        along = np.linspace(0, 1, len(line))
        length = np.hypot(*np.diff(line, axis=0).T).sum()
        waves = sum(
            a * np.sin(math.tau * (f * along + rng.random()))[:, None] * rng.normal(size=2)
            for f, a in ((1.3, 0.5), (3.1, 0.3), (6.7, 0.14))
        )
        pressure = ends + (1 - ends) * np.sin(math.pi * np.clip(along, 0, 1)) ** 0.55
        pressure *= 1 + 0.16 * np.sin(math.tau * (2.2 * along + rng.random()))
        dots = (np.asarray(line) + waves * min(1, length / 240)) * OVERSAMPLING
        for (x, y), p, (x2, y2) in zip(dots[:-1], pressure[:-1], dots[1:], strict=True):
            r = width * p * OVERSAMPLING / 2
            count = max(2, int(math.hypot(x2 - x, y2 - y) / max(r, 1) * 2))
            for t in np.linspace(0, 1, count):
                cx, cy = x + (x2 - x) * t, y + (y2 - y) * t
                self.pen.ellipse((cx - r, cy - r, cx + r, cy + r), fill=colour)

    def shape(self, points, colour, seed, width=3.4, slip=(0.8, 0.6)):
        outline = curve(points, closed=True)
        self.fill(outline, colour, slip)
        self.stroke(outline, width, seed, ends=0.6)
        return outline

    def finished(self):
        """Down to size, with the tooth of the paper over everything; the same paper under both pictures."""
        small = self.image.resize(SIZE_PX, Image.Resampling.LANCZOS)
        rng = np.random.default_rng(7)
        tooth = Image.fromarray(rng.integers(0, 256, SIZE_PX[::-1], np.uint8)).filter(ImageFilter.GaussianBlur(1.1))
        grain = (np.asarray(tooth, float) - 127.5) * 0.10
        return Image.fromarray(np.clip(np.asarray(small, float) + grain[..., None], 0, 255).astype(np.uint8))


def draw_land(sheet, pose):
    w, h = SIZE_PX
    for y in range(h):
        t = min(1, y / 330)
        colour = tuple(round(a + (b - a) * t) for a, b in zip(SKY_TOP, SKY_LOW, strict=True))
        sheet.pen.rectangle((0, y * OVERSAMPLING, w * OVERSAMPLING, (y + 1) * OVERSAMPLING), fill=colour)
    sheet.fill([(628 + 56 * math.cos(a), 128 + 56 * math.sin(a)) for a in np.linspace(0, math.tau, 90)], SUN)
    draw_cloud(sheet, 150 + pose["cloud"], 86, 1.0, 11)
    draw_cloud(sheet, 705 + pose["cloud"] * 0.6, 190, 0.62, 12)
    ridges = (
        (HILL_FARTHEST, [(-20, 318), (120, 276), (260, 306), (430, 262), (600, 304), (760, 270), (860, 296)], 31),
        (HILL_FAR, [(-20, 352), (140, 330), (330, 356), (540, 318), (720, 346), (860, 322)], 32),
        (HILL, [(-20, 420), (150, 388), (360, 372), (560, 386), (720, 402), (860, 392)], 33),
    )
    for colour, ridge, seed in ridges:
        line = curve(ridge, steps=40)
        sheet.fill([*line, (w + 20, h + 20), (-20, h + 20)], colour)
        sheet.stroke(line, 2.0 if seed < 33 else 3.0, seed, INK if seed == 33 else FUR_FAR[seed], ends=0.8)
    rng = np.random.default_rng(5)
    for x in (54, 118, 168, 590, 652, 716, 792):
        for blade in range(4):
            lean = (blade - 1.5) * 5 + rng.normal() * 2 + pose["wind"] * 5
            root = (x + blade * 5, 418 + rng.integers(0, 26))
            tip = (root[0] + lean, root[1] - 17 - rng.integers(0, 8))
            sheet.stroke(
                curve([root, ((root[0] + tip[0]) / 2 - lean * 0.2, (root[1] + tip[1]) / 2), tip]), 2.4, x + blade
            )


FUR_FAR = {31: (158, 172, 140), 32: (128, 150, 100)}
"""Ink of the far ridges, thinned by the air between."""


def draw_cloud(sheet, x, y, scale, seed):
    bumps = [(-88, 22), (-70, -6), (-36, -14), (-8, -36), (32, -30), (50, -8), (84, -2), (96, 22), (40, 30), (-40, 30)]
    outline = curve([(x + a * scale, y + b * scale) for a, b in bumps], closed=True)
    sheet.fill(outline, (255, 251, 240))
    sheet.stroke(outline, 2.0, seed, (120, 140, 150), ends=0.7)


def draw_bird(sheet, pose):
    x, y = 214 + pose["bird"][0], 190 + pose["bird"][1]
    lift = -17 + 10 * pose["flap"]
    for side in (-1, 1):
        wing = [
            (x, y),
            (x + side * 14, y + lift),
            (x + side * 30, y + lift * 0.55),
            (x + side * 40, y + lift * 0.2 + 4),
        ]
        sheet.stroke(curve(wing), 4.2, 70 + side)


def draw_tail(sheet, pose):
    base = np.array([352, 388])

    def swung(points):
        return turned(points, pose["tail"], base)

    brush = [(352, 398), (304, 410), (248, 402), (208, 370), (196, 326), (212, 284), (240, 318), (264, 350), (330, 362)]
    sheet.shape(swung(brush), FUR, 41)
    tip = [(197, 338), (197, 314), (212, 284), (236, 312), (246, 326), (232, 328), (224, 340), (212, 330)]
    sheet.fill(curve(swung(tip), closed=True), CREAM)
    sheet.stroke(curve(swung([(197, 338), (212, 330), (224, 340), (232, 328), (247, 327)])), 2.2, 42)
    sheet.stroke(curve(swung([(199, 346), (197, 314), (212, 284), (236, 312), (258, 344)])), 3.4, 43)


def draw_body(sheet):
    body = [(366, 268), (350, 312), (338, 362), (346, 404), (392, 414), (446, 412), (462, 376), (452, 318), (436, 270)]
    sheet.shape(body, FUR, 44)
    chest = [(404, 282), (386, 318), (390, 356), (412, 374), (434, 354), (440, 314), (428, 284)]
    sheet.fill(curve(chest, closed=True), CREAM)
    sheet.stroke(curve([(388, 312), (384, 338), (392, 358), (400, 352), (408, 372)]), 2.2, 45)
    haunch = [(344, 400), (340, 366), (362, 344), (388, 358), (392, 392), (380, 412), (352, 412)]
    sheet.fill(curve(haunch, closed=True), FUR)
    sheet.stroke(curve([(352, 356), (376, 350), (391, 370), (390, 400), (376, 412)]), 3.0, 46)
    for n, x in enumerate((408, 442)):
        leg = [(x - 13, 340), (x - 14, 380), (x - 16, 406), (x - 4, 415), (x + 14, 413), (x + 12, 384), (x + 11, 340)]
        sheet.fill(curve(leg, closed=True), FUR)
        sock = [(x - 15, 392), (x - 17, 406), (x - 4, 415), (x + 15, 413), (x + 13, 392)]
        sheet.fill(curve(sock, closed=True), INK)
        sheet.stroke(curve([(x - 13, 346), (x - 14, 380), (x - 17, 406), (x - 4, 416), (x + 15, 413)]), 3.2, 47 + n)
        sheet.stroke(curve([(x + 15, 413), (x + 12, 384), (x + 10, 350)]), 3.0, 49 + n)


def draw_head(sheet, pose):
    neck = np.array([404, 262])

    def nodded(points):
        return turned(points, pose["head"], neck, pose["nod"])

    far_ear = [(446, 178), (462, 138), (478, 112), (490, 146), (490, 190)]
    sheet.shape(nodded(far_ear), FUR_SHADE, 51)
    head = [(346, 232), (340, 204), (354, 174), (388, 156), (430, 156), (470, 172), (494, 204), (528, 226)]
    head += [(534, 236), (520, 246), (484, 258), (446, 274), (398, 274), (366, 258)]
    sheet.shape(nodded(head), FUR, 52)
    cheek = [(366, 250), (392, 240), (424, 238), (452, 228), (484, 224), (524, 236), (512, 246), (482, 256), (446, 271)]
    cheek += [(398, 271), (374, 260)]
    sheet.fill(curve(nodded(cheek), closed=True), CREAM)
    sheet.stroke(curve(nodded([(376, 246), (392, 241), (404, 246), (424, 238), (452, 228), (478, 224)])), 2.0, 53)
    near_ear = [(362, 186), (354, 142), (356, 104), (386, 126), (410, 164)]
    sheet.shape(nodded(near_ear), FUR, 54)
    sheet.fill(curve(nodded([(370, 172), (364, 142), (364, 120), (382, 136), (394, 162)]), closed=True), INK)
    nose = [(520, 224), (534, 222), (542, 230), (534, 240), (522, 236)]
    sheet.fill(curve(nodded(nose), closed=True), INK)
    sheet.stroke(curve(nodded([(526, 242), (506, 248), (484, 246)])), 2.6, 55)
    eye = nodded([(450 + 8.5 * math.cos(a), 208 + 12 * math.sin(a)) for a in np.linspace(0, math.tau, 40)])
    sheet.fill(eye, INK)
    sheet.fill(nodded([(453 + 3 * math.cos(a), 203 + 3.4 * math.sin(a)) for a in np.linspace(0, math.tau, 20)]), PAPER)
    sheet.stroke(curve(nodded([(438, 194), (450, 189), (462, 194)])), 2.8, 56)
    for n, (dx, dy) in enumerate(((-12, 4), (-20, 11), (-14, 19))):
        tuft = [(352, 236 + n * 8), (352 + dx, 238 + n * 8 + dy * 0.5), (362, 246 + n * 8)]
        sheet.stroke(curve(nodded(tuft)), 2.6, 57 + n)


def draw_scarf(sheet, pose):
    wind = pose["wind"]

    def end(points, give):
        """The loose end lifts with the wind, its far part most."""
        return [(x - 10 * wind * g, y - 34 * wind * g) for (x, y), g in zip(points, give, strict=True)]

    tail = [(372, 276), (344, 278), (316, 284), (292, 278), (284, 303), (312, 312), (342, 306), (370, 298)]
    tail = end(tail, (0, 0.25, 0.6, 0.95, 1.0, 0.7, 0.3, 0))
    sheet.shape(tail, SCARF, 61)
    for n, t in enumerate((0.15, 0.5, 0.85)):
        near = np.array(tail[3]) * (1 - t) + np.array(tail[4]) * t
        fringe = near + np.array([(0, 0), (-7, 1 - 3 * wind), (-15, 1 - 5 * wind)])
        sheet.stroke(curve(fringe), 2.6, 62 + n)
    stripe = [tuple((np.array(a) + np.array(b)) / 2) for a, b in ((tail[2], tail[5]), (tail[1], tail[6]))]
    for n, (x, y) in enumerate(stripe):
        sheet.stroke(curve([(x - 3, y - 12), (x + 1, y), (x - 1, y + 12)]), 5.0, 66 + n, CREAM, ends=0.8)
    band = [(362, 262), (392, 274), (428, 274), (450, 262), (456, 280), (434, 296), (394, 298), (360, 284)]
    sheet.shape(band, SCARF, 68)
    sheet.fill(
        curve([(362, 278), (394, 290), (432, 289), (454, 276), (454, 282), (434, 296), (394, 298)], closed=True),
        SCARF_SHADE,
    )
    sheet.stroke(curve([(360, 284), (394, 298), (434, 296), (456, 280)]), 3.2, 69)


def draw(pose):
    sheet = Sheet()
    draw_land(sheet, pose)
    draw_bird(sheet, pose)
    draw_tail(sheet, pose)
    draw_body(sheet)
    draw_head(sheet, pose)
    draw_scarf(sheet, pose)
    return sheet.finished()


if __name__ == "__main__":
    for name, pose in POSES.items():
        draw(pose).save(HERE / f"{name}.png", optimize=True)
