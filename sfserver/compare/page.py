"""The page: one HTML file that asks nothing of any network. Every clip is one picture of all its frames, side by side;
a slider, or the pointer over any strip, moves all of them at once.
"""

from __future__ import annotations

import base64
import html
import io
import json
import math
from collections.abc import Sequence
from pathlib import Path

from attrs import asdict, frozen
from PIL import Image

from ..media.files import appearing
from .cells import Outcome
from .measures import Clip

TEMPLATE = Path(__file__).with_name("page.html")
VIEW_WIDTH = 320
"""Pixels of a frame on the page."""
COLUMNS = 10
"""Frames in a row of the sprite: JPEG ends at 65,535 pixels a side."""
QUALITY = 85


@frozen(eq=False)
class Row:
    """One clip of the page."""

    name: str
    clip: Clip
    outcome: Outcome
    command: str


HEADINGS = {
    "seconds": ("Seconds", "from the request to the last frame, weights loaded"),
    "first": ("First frame", "seconds to the first in-between"),
    "memory": ("Memory, GB", "the most that was held on the GPU, or by the process without one"),
    "end_error": ("End error", "the last in-between against the end keyframe: 0 is the same picture"),
    "seam": ("Seam", "how far colours jump at the keyframes, beyond what they do from frame to frame"),
    "flicker": ("Flicker", "how far colours leave the line between the frames around them"),
    "motion_at_start": ("Motion, start", "of the first four in-betweens, over that of the middle: 1 is even"),
    "motion_at_end": ("Motion, end", "of the last four in-betweens, over that of the middle: 0 stands still"),
}


def write_page(path: Path, prompt: str, rows: Sequence[Row]) -> None:
    """Raises MediaError where it cannot be written."""
    longest = max(len(row.clip) for row in rows)
    data = json.dumps([_facts(row) for row in rows]).replace("<", "\\u003c")  # no text ends the script early
    columns = "".join(f'<th title="{html.escape(hint)}">{html.escape(name)}</th>' for name, hint in HEADINGS.values())
    text = TEMPLATE.read_text("utf-8")
    for mark, value in {
        "{{prompt}}": html.escape(prompt or "without a prompt"),
        "{{last}}": str(longest - 1),
        "{{headings}}": columns,
        "{{rows}}": data,
    }.items():
        text = text.replace(mark, value)
    with appearing(path) as part:
        part.write_text(text, "utf-8")


def _facts(row: Row) -> dict[str, object]:
    """What the page's script knows of a row."""
    sprite, width, height = _sprite(row.clip)
    return {
        "name": row.name,
        "command": row.command,
        "frames": len(row.clip),
        "columns": min(COLUMNS, len(row.clip)),
        "width": width,
        "height": height,
        "sprite": sprite,
        "figures": figures(row),
    }


def figures(row: Row) -> list[str]:
    """What was measured of a row, in the order of HEADINGS."""
    out, measured = row.outcome, asdict(row.outcome.measured)
    return [
        f"{out.seconds:.1f}",
        f"{out.first_s:.1f}",
        f"{out.memory_bytes / 1e9:.2f}",
        *(f"{measured[name]:.4f}" for name in ("end_error", "seam", "flicker")),
        *(f"{measured[name]:.2f}" for name in ("motion_at_start", "motion_at_end")),
    ]


def _sprite(clip: Clip) -> tuple[str, int, int]:
    """All frames in one JPEG, as a data URL, and the size of each."""
    height, width = clip.shape[1:3]
    shown = (min(VIEW_WIDTH, width), max(1, round(min(VIEW_WIDTH, width) * height / width)))
    columns = min(COLUMNS, len(clip))
    sheet = Image.new("RGB", (columns * shown[0], math.ceil(len(clip) / columns) * shown[1]))
    for i, frame in enumerate(clip):
        place = (i % columns * shown[0], i // columns * shown[1])
        sheet.paste(Image.fromarray(frame).resize(shown, Image.Resampling.LANCZOS), place)
    file = io.BytesIO()
    sheet.save(file, "JPEG", quality=QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}", *shown
