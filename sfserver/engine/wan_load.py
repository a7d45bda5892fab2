"""Loading one Wan 2.1 model: its networks onto their devices, its prompts through a cache."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import TypeVar

import torch
from sfwire.errors import ErrorCode, RequestError
from sfwire.messages import EngineInfo

from ..config import ServerConfig
from ..model import eightbit
from ..model.attention import Attend, attend, choose_attention, kernel_preference
from ..model.eightbit import Kind
from ..model.graphs import recorder
from ..model.tae import Tae
from ..model.text import PromptCache, PromptEncoder
from ..model.vae import WanVae
from ..weights import loading
from ..weights.files import WeightsError
from . import capacity, draft
from .cards import USABLE
from .presets import Preset, Role
from .rehearsal import Rehearsals
from .wan_engine import WanEngine, Weights, says_out_of_memory

Loaded = TypeVar("Loaded")
logger = logging.getLogger(__name__)

CPU = torch.device("cpu")
TEXT_DTYPE = torch.bfloat16
"""As it is published, whatever the engine computes in: in float32 it would be twice as large. Inside, softmax and norms
are float32 all the same."""


def load(preset: Preset, info: EngineInfo, folder: Path, config: ServerConfig) -> WanEngine:
    """The engine of a preset whose parts lie below `folder`.

    Raises WeightsError, or RequestError without a device or with too little memory.
    """
    device = choose_device(config)
    dtype = choose_dtype(config, device)
    size = capacity.weight_bytes(preset.dit, dtype.itemsize, preset.transformers)  # before it is made smaller
    weights = within_memory(
        lambda: _load_weights(preset, info, folder, config, device, dtype),
        f"the weights of engine {info.id} take {size / 1e9:.1f} GB, more than is free on {device.type}; "
        "choose another engine, or end what else runs there",
    )
    keep_compiled(config.cache_dir)
    chosen = _attention(config, device, weights.dit.compute_dtype)
    rehearsals = Rehearsals(chosen, device) if config.compile == "beside" else None
    return WanEngine(info, preset, weights, device, rehearsals, chosen, recorder(device, config.graphs))


def _attention(config: ServerConfig, device: torch.device, dtype: torch.dtype) -> Attend:
    try:
        return choose_attention(config.attention, device, dtype)
    except ImportError as error:
        raise RequestError(ErrorCode.ENGINE_UNAVAILABLE, str(error), "engine") from None


def keep_compiled(cache_dir: Path) -> None:
    """Where compiled code outlives a process, unless the environment says it: torch looks there before it compiles."""
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache_dir / "compiled"))
    os.environ.setdefault("TRITON_CACHE_DIR", str(cache_dir / "compiled" / "triton"))


def _load_weights(
    preset: Preset, info: EngineInfo, folder: Path, config: ServerConfig, device: torch.device, dtype: torch.dtype
) -> Weights:
    if device.type == "cuda" and dtype == torch.float32:
        torch.backends.cudnn.allow_tf32 = False  # who asks for float32 wants its precision

    def home(role: Role) -> Path:
        part = preset.part(role)
        assert part is not None, role
        return (folder / part.path).parent

    has_choice = any(parameter.name == "decoder" for parameter in info.parameters)

    def load_codec(preset: Preset) -> WanVae | Tae:
        """The model's own way from pixels to latents; the smallest have a TAEHV for it."""
        if preset.part("vae"):
            return loading.load_vae(home("vae"), device, dtype)
        return loading.load_tae(home("tae"), device, dtype)

    vace_home = home("vace") if preset.dit.vace_layers else None
    eight_bit = choose_eight_bit(config, loading.component_of(home("dit"), "dit").dtype, device)
    dit, vace = loading.load_transformer(home("dit"), vace_home, device, dtype, preset.dit, eight_bit)
    return Weights(
        dit=dit,
        clean=loading.load_clean(home("clean"), dit, device, dtype, eight_bit) if preset.part("clean") else None,
        vace=vace,
        vae=load_codec(preset),
        tae=loading.load_tae(home("tae"), device, dtype) if has_choice else None,
        embed=_prompt_encoder(home("text"), home("tokenizer"), preset, config, device),
        draft=cache(partial(draft.load, config)),
        eight_bit=eight_bit is not None,
    )


@torch.no_grad()
def warm_up(device: torch.device) -> None:
    """One small kernel of each library that a model's passes and decoders call: that loads them onto the device."""
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    x = torch.zeros(1, 64, 2, 64, device=device, dtype=dtype)
    with kernel_preference():
        attend(x, x, x)
    torch.nn.functional.linear(x, x[0, :, 0])
    grey = torch.zeros(1, 16, 3, 8, 8, device=device, dtype=dtype).contiguous(memory_format=torch.channels_last_3d)
    torch.nn.functional.conv3d(grey, grey.expand(16, -1, -1, -1, -1)[..., :3, :3])
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def within_memory(load: Callable[[], Loaded], or_else: str) -> Loaded:
    """What `load` makes. Raises RequestError with the sentence `or_else` where memory runs out meanwhile."""
    try:
        return load()
    except (torch.OutOfMemoryError, MemoryError):
        pass
    except RuntimeError as error:
        if not says_out_of_memory(error):
            raise
    # Raised out here: what was caught above holds on to everything that was loaded.
    raise RequestError(ErrorCode.OUT_OF_MEMORY, or_else, "engine")


def text_device(device: torch.device, kept_bytes: int, text_bytes: int) -> torch.device:
    """Where prompts are read: on a GPU that holds the text encoder beside what it keeps, for as long as that takes.

    By the size of the card and not by what is free of it: both ways differ by the last bits.
    """
    if device.type != "cuda":
        return CPU
    total = torch.cuda.get_device_properties(device).total_memory
    return device if kept_bytes + text_bytes + capacity.OVERHEAD_BYTES <= USABLE * total else CPU


def _prompt_encoder(
    text: Path, tokenizer: Path, preset: Preset, config: ServerConfig, device: torch.device
) -> Callable[[str], torch.Tensor]:
    """Prompt to embedding. The encoder is loaded when a prompt is new: then, its files may have gone."""
    size = loading.component_of(text, "text").bytes
    home = text_device(device, capacity.weight_bytes(preset.dit, 2, preset.transformers), size)
    where = "" if home == CPU else f"-{home.type}"  # what one has said is not what the other would
    identity = f"{loading.text_identity(text, tokenizer)}-{TEXT_DTYPE}{where}"
    cache = PromptCache(config.cache_dir / "prompts", identity)
    too_large = (
        f"the text encoder, which a new prompt needs, takes {size / 1e9:.1f} GB of memory, more than is free; "
        "end other programs, or take a prompt that was used before"
    )
    encoder = PromptEncoder(
        lambda: loading.load_text_encoder(text, tokenizer, home, TEXT_DTYPE, preset.dit.text_len), cache
    )

    def embed(prompt: str) -> torch.Tensor:
        try:
            return within_memory(lambda: encoder(prompt), too_large)
        except WeightsError as error:
            raise RequestError(ErrorCode.ENGINE_UNAVAILABLE, str(error), "engine") from None

    return embed


def choose_device(config: ServerConfig) -> torch.device:
    """The device that is asked for, or the best there is. Raises RequestError where it is not there."""
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if config.device == "auto":
        return torch.device(next(name for name, is_there in there.items() if is_there))
    if not there[config.device]:
        message = f"device {config.device} is not on this machine; choose --device auto"
        raise RequestError(ErrorCode.ENGINE_UNAVAILABLE, message, "engine")
    return torch.device(config.device)


def choose_eight_bit(config: ServerConfig, kept: str, device: torch.device) -> Kind | None:
    """What the large matrices are computed in, if in 8 bits: as it is asked for, or as the file, of dtype `kept`, was
    made where this machine can. Raises RequestError where it cannot do what is asked for.
    """
    wanted = eightbit.kind_of(config.precision)
    kind = wanted or (eightbit.kind_of(kept) if config.precision == "auto" else None)
    why_not = eightbit.why_not(kind, device) if kind else None
    if wanted and why_not:
        raise RequestError(ErrorCode.ENGINE_UNAVAILABLE, why_not, "engine")
    if why_not:
        logger.warning("the weights are kept in %s and computed in more bits: %s", kept, why_not)
    return None if why_not else kind


def choose_dtype(config: ServerConfig, device: torch.device) -> torch.dtype:
    """bfloat16 on CUDA and float32 elsewhere, unless told. What is not in 8 bits beside matrices that are, as well."""
    if config.precision in ("auto", "fp8", "int8"):
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    return torch.bfloat16 if config.precision == "bf16" else torch.float32
