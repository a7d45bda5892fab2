"""The 1.3B model on a GPU, with random weights: passes, blocks, decoding and memory, against what the work must take.

Floors are FLOPs over the rate of a large matrix product of the same run, so a figure says how far from the hardware
the software is and not how fast the hardware is. Weights are normal, their results are asserted to be finite.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import torch

from ..errors import UserError
from . import ready
from .clips import Clips
from .full import first_picture
from .parts import Parts
from .report import Measure
from .rig import Rig, Scale


def measure(on_stage: Callable[[str], None], profile: Path | None = None, against: Path | None = None) -> list[Measure]:
    """All measures of the GPU. `profile` is where a chrome trace of two blocks goes, `against` a checkout of the
    published pipeline. Raises UserError where there is no GPU, or no such checkout.
    """
    if not torch.cuda.is_available():
        raise UserError("bench --gpu needs a GPU that torch can use through CUDA; without --gpu, the CPU is measured")
    measures = measure_on(torch.device("cuda"), torch.bfloat16, Scale(), on_stage, profile, against)
    on_stage("first picture, through a server")
    return [*measures, first_picture(*Scale().sizes[0], 81)]


@torch.no_grad()
def measure_on(
    device: torch.device,
    dtype: torch.dtype,
    scale: Scale,
    on_stage: Callable[[str], None],
    profile: Path | None = None,
    against: Path | None = None,
) -> list[Measure]:
    """The same on any device and at any scale, for the tests."""
    rig = Rig(device, dtype, scale)
    parts, clips = Parts(rig), Clips(rig)
    on_stage(f"{rig.device_name}, matrix products")
    measures = [rig.yardstick()]
    for size in scale.sizes:
        on_stage(f"passes at {size[0]}x{size[1]}")
        measures += parts.passes(*size)
        for name, decoder in rig.decoders.items():
            on_stage(f"blocks and {name} at {size[0]}x{size[1]}")
            measures += parts.decoding(name, decoder, *size)
            measures += clips.whole(name, decoder, *size)
    usual = scale.sizes[0]
    on_stage("stages of a block")
    measures += parts.stages(*usual)
    on_stage("an end keyframe, in turns with none")
    measures.append(clips.end_keyframe(*usual))
    on_stage(f"{scale.long_blocks} blocks behind a window")
    measures.append(clips.growth(*usual))
    on_stage("in 8 bits, in turns with more")
    measures += clips.in_eight_bits(*usual)
    on_stage("recorded passes, in turns with plain ones")
    measures += clips.recorded(*scale.sizes[-1])
    on_stage("from process start to ready")
    measures.append(ready.measure(rig.dit, device, dtype))
    if len(scale.sizes) > 1:
        measures.append(previews(measures, *scale.sizes[:2]))
    if against:
        on_stage("the published pipeline, in turns")
        measures += clips.against(against, *usual)
    if profile:
        on_stage("profile")
        clips.profile(profile, *usual)
    return measures


def previews(measures: Sequence[Measure], usual: tuple[int, int], preview: tuple[int, int]) -> Measure:
    """Frames a second at the preview's size against the usual one."""
    by_name = {measure.name: measure.value for measure in measures}
    fast, slow = (by_name[f"clip, TAE, {width}x{height}"] for width, height in (preview, usual))
    how = f"{preview[0]}x{preview[1]} over {usual[0]}x{usual[1]}, TAE, frames/s"
    return Measure("preview", fast / slow, None, "high", "x", how, goal="G7")


def facts(command: Sequence[str]) -> dict[str, str]:
    """What a figure of a GPU means nothing without."""
    found = {"torch": torch.__version__, "date": time.strftime("%Y-%m-%d"), "command": " ".join(command)}
    if torch.cuda.is_available():
        card = torch.cuda.get_device_properties(0)
        found |= {"card": f"{card.name}, {card.total_memory / 1024**3:.0f} GB", "cuda": str(torch.version.cuda)}
        found["cudnn"] = str(torch.backends.cudnn.version())
        with suppress(OSError, subprocess.SubprocessError):
            query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
            found["driver"] = subprocess.run(query, capture_output=True, text=True, timeout=20).stdout.strip()
    return found
