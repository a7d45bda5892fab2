"""The published pipeline of Self Forcing beside ours: from a checkout that the user has, with random weights, in turns.

Nothing of it is copied or downloaded: its own `CausalInferencePipeline` makes the clip, its weights are drawn at random
instead of being loaded, and it may use the attention kernels that ours prefers. Its code runs in this process, so the
checkout is one that the user trusts.
"""

from __future__ import annotations

import importlib
import io
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from attrs import frozen
from torch import Tensor

from ..engine.presets import SELF_FORCING
from ..errors import UserError
from ..model.attention import kernel_preference
from ..model.config import DitConfig
from .report import Measure
from .tiny import randomised

NEEDED = ("pipeline/causal_inference.py", "utils/wan_wrapper.py", "wan/modules/causal_model.py", "wan/modules/vae.py")
_VAE = {
    "dim": 96,
    "z_dim": 16,
    "dim_mult": [1, 2, 4, 4],
    "num_res_blocks": 2,
    "attn_scales": [],
    "temperal_downsample": [False, True, True],
    "dropout": 0.0,
}
"""What its loader builds, in its own spelling."""


@frozen(eq=False)
class Published:
    """The published pipeline on a device."""

    pipeline: Any
    device: torch.device
    dtype: torch.dtype

    def clip(self, shape: tuple[int, ...]) -> Tensor:
        """Pixels of a clip of latents [B, F, C, H, W], decoded by its VAE."""
        noise = torch.randn(shape, device=self.device, dtype=self.dtype)
        with kernel_preference(), redirect_stdout(io.StringIO()):
            return self.pipeline.inference(noise=noise, text_prompts=[""])


def published(folder: Path, config: DitConfig, device: torch.device, dtype: torch.dtype) -> Published:
    """The pipeline of a checkout. Raises UserError where it is none, or cannot be imported."""
    missing = [name for name in NEEDED if not (folder / name).is_file()]
    if missing:
        raise UserError(f"{folder}: is no checkout of Self-Forcing, it lacks {missing[0]}; clone its repository")
    with _importable(folder):
        try:
            wrapper: Any = importlib.import_module("utils.wan_wrapper")
            pipeline = importlib.import_module("pipeline.causal_inference")
            vae = importlib.import_module("wan.modules.vae")
        except ImportError as error:
            raise UserError(f"{folder}: cannot be imported ({error}); install what its README asks for") from None
    sizes = {"dim": config.dim, "ffn_dim": config.ffn_dim, "num_heads": config.heads, "num_layers": config.layers}

    def drawn(path: str, **options: Any) -> Any:
        own = {name: value for name, value in options.items() if name in ("local_attn_size", "sink_size")}
        return randomised(wrapper.CausalWanModel(**sizes, **own), 1)

    wrapper.CausalWanModel.from_pretrained = staticmethod(drawn)
    wrapper._video_vae = lambda **options: randomised(vae.WanVAE_(**_VAE), 2)
    with torch.device(device):
        generator = wrapper.WanDiffusionWrapper(timestep_shift=SELF_FORCING.shift, is_causal=True)
        embeds = torch.randn(1, config.text_len, config.text_dim, dtype=dtype)
    settings = SimpleNamespace(
        denoising_step_list=[int(step) for step in SELF_FORCING.steps],
        warp_denoising_step=SELF_FORCING.warp,
        num_frame_per_block=SELF_FORCING.per_block,
        independent_first_frame=False,
        context_noise=0,
    )
    made = pipeline.CausalInferencePipeline(
        settings,
        device=device,
        generator=generator.to(device, dtype),
        text_encoder=lambda text_prompts: {"prompt_embeds": embeds},
        vae=wrapper.WanVAEWrapper().to(device, dtype),
    )
    return Published(made, device, dtype)


def compare(
    theirs: Published, shape: tuple[int, ...], ours: dict[str, Callable[[], None]], wait: Callable[[], None], pairs: int
) -> list[Measure]:
    """How many times as fast each of our ways makes the clip, by goal; all take turns, medians of `pairs`."""
    took: dict[str, list[float]] = {}
    for _ in range(pairs + 1):
        for name, make in {"": lambda: _finite(theirs.clip(shape)), **ours}.items():
            wait()
            began = time.perf_counter()
            make()
            wait()
            took.setdefault(name, []).append(time.perf_counter() - began)
    theirs_s, *ours_s = (times[1:] for times in took.values())  # in the first round everything is cold
    how = f"the published pipeline over ours, {shape[1]} latents, median of {pairs} rounds in turns"
    decoders = {"G1": "TAE", "G2": "TAE and 8 bits", "G3": "Wan VAE"}
    return [
        Measure(
            f"clip against the published, {decoders[goal]}",
            statistics.median(a / b for a, b in zip(theirs_s, times, strict=True)),
            None,
            "high",
            "x",
            f"{how}; theirs took {statistics.median(theirs_s):.2f} s",
            goal,
        )
        for goal, times in zip(ours, ours_s, strict=True)
    ]


def _finite(pixels: Tensor) -> None:
    assert pixels.isfinite().all()


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
