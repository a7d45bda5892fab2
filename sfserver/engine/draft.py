"""The draft engine: what serves where there is no big model. Motion from one keyframe to the next, by RIFE 4.25.

It comes with its weights and runs on any CPU. This file is what it says of itself, which costs neither torch nor numpy,
and how it is loaded; `flow.py` makes the frames, after `plan.py` for two keyframes and `picture.py` for each time.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import psutil
from sfwire.errors import ErrorCode, RequestError
from sfwire.messages import EngineInfo, Parameter

from ..config import ServerConfig
from .base import Engine

ID = "draft"
VERSION = "rife-4.25+4"
"""The part behind the + is ours: it goes up whenever pixels change."""

WEIGHTS = Path(__file__).parent.parent / "data" / "rife" / "flownet-4.25.safetensors"
WEIGHTS_SHA256 = "e4638dde35c5467e3a29df4dfbd3b5972ab5919ecce39f8d9def482f70633368"

EASINGS = ("linear", "in", "out", "in-out")
QUALITIES = ("fast", "fine")
CUTS = ("dissolve", "hold")


def describe(config: ServerConfig) -> EngineInfo:
    """What the draft engine says of itself. It is the same on every device."""
    missing = () if WEIGHTS.is_file() else (f"{WEIGHTS} is gone; install sfserver again",)
    return EngineInfo(
        id=ID,
        title="Draft (RIFE 4.25)",
        summary="Moves what the keyframes show from one to the next: the camera, cut-outs in front of it, and what "
        "else changes. It ignores the prompt and the seed. Where two keyframes have too little in common it dissolves "
        "or cuts, and outside of them it holds the nearest.",
        version=VERSION,
        licence="MIT, Copyright (c) 2021 hzwer (Practical-RIFE)",
        uses_prompt=False,
        uses_negative_prompt=False,
        available=not missing,
        missing=missing,
        can_skip=True,
        max_channels=4,
        max_depth=32,
        parameters=(
            Parameter(
                name="easing",
                kind="choice",
                default=EASINGS[0],
                help="How frames are spaced between two keyframes: 'in' starts slowly, 'out' ends slowly; 'linear' "
                "goes on at the speed of frames given right before and after",
                choices=EASINGS,
            ),
            Parameter(
                name="quality",
                kind="choice",
                default=QUALITIES[0],
                help="'fine' looks at each frame from both keyframes' sides: a little sharper, twice the time",
                choices=QUALITIES,
            ),
            Parameter(
                name="cut",
                kind="choice",
                default=CUTS[0],
                help="Between keyframes that have too little in common: a dissolve, or the first is held and then the "
                "second",
                choices=CUTS,
            ),
        ),
    )


def load(config: ServerConfig) -> Engine:
    """Weights onto the device, float32 whatever `config.precision` says: in bf16 this network makes no picture.

    `auto` is CUDA where there is one, else the CPU; `mps` is the CPU too, as nobody has checked this network there.
    Raises RequestError where the device is not there or the weights are missing, cut off or not the ones we know.
    """
    import torch

    from ..model import rife
    from .flow import FlowEngine

    if config.device == "cuda" and not torch.cuda.is_available():
        raise _unavailable("device cuda: torch finds none; set device to auto or cpu, or install torch with CUDA")
    device = torch.device("cuda" if config.device in ("auto", "cuda") and torch.cuda.is_available() else "cpu")
    try:
        sha256 = hashlib.sha256(WEIGHTS.read_bytes()).hexdigest()
    except OSError as error:
        raise _unavailable(f"{WEIGHTS} cannot be read ({error.strerror}); install sfserver again") from None
    if sha256 != WEIGHTS_SHA256:
        raise _unavailable(f"{WEIGHTS} is not the file that sfserver came with; install sfserver again")

    def free_bytes() -> int:
        if device.type == "cpu":
            return psutil.virtual_memory().available
        return torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device)

    return FlowEngine(rife.load(WEIGHTS, device), device, describe(config), free_bytes)


def _unavailable(reason: str) -> RequestError:
    return RequestError(ErrorCode.ENGINE_UNAVAILABLE, reason, "engine")
