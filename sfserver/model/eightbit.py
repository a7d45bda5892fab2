"""The large linear layers in 8 bits: one scale for each row of a weight, and one for each token that meets it.

A weight becomes a tensor of torchao's, put in place of the plain one from outside: it says of itself that it has the
precision around it, and `linear` with it rounds what comes in and multiplies in 8 bits. On a CPU the same arithmetic
runs, exactly and slowly. What is not a large matrix of a block stays as it is.
"""

from __future__ import annotations

import importlib.util
import logging
import re
from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch import Tensor, nn

Kind = Literal["int8", "fp8"]
DTYPE_OF: dict[Kind, torch.dtype] = {"int8": torch.int8, "fp8": torch.float8_e4m3fn}
LARGEST: dict[Kind, float] = {"int8": 127.0, "fp8": 448.0}
LEAST_CAPABILITY: dict[Kind, tuple[int, int]] = {"int8": (8, 0), "fp8": (8, 9)}
"""Of a card whose matrix units know it: Ampere; Ada."""
CARDS: dict[Kind, str] = {
    "int8": "an NVIDIA card from Ampere on (RTX 30)",
    "fp8": "an NVIDIA card from Ada on (RTX 40)",
}
SCALE = "_scale"
"""Ends the name of a weight's scales, [rows, 1] float32, beside it in a file."""
_LARGE = re.compile(
    r"(vace_)?blocks\.\d+\.((self_attn|cross_attn)\.[qkvo]|ffn\.[02]|before_proj|after_proj)\.weight"
)  # fmt: skip


def kind_of(name: str) -> Kind | None:
    """Of a precision or the dtype of a component; None for one of more bits."""
    return next((kind for kind in DTYPE_OF if kind == name), None)


def is_large(name: str) -> bool:
    """Whether the parameter of that name is kept in 8 bits: matrices of blocks, nothing that handles time or ends."""
    return _LARGE.fullmatch(name) is not None


def is_large_weight(weight: Tensor) -> bool:
    """Whether it is one of those that `as_weight` makes."""
    return hasattr(weight, "qdata")


def scales_of(weight: Tensor, kind: Kind) -> Tensor:
    """[rows, columns] to [rows, 1] float32: the largest of each row becomes the largest number that there is."""
    largest = weight.float().abs().amax(dim=1, keepdim=True)
    return largest.clamp(min=torch.finfo(torch.float32).tiny) / LARGEST[kind]


def rounded(weight: Tensor, scales: Tensor, kind: Kind) -> Tensor:
    """[rows, columns] in 8 bits."""
    scaled = (weight.float() / scales).clamp(-LARGEST[kind], LARGEST[kind])
    return (scaled.round() if kind == "int8" else scaled).to(DTYPE_OF[kind])


def why_not(kind: Kind, device: torch.device) -> str | None:
    """What keeps this machine from it, with the remedy; None where nothing does."""
    if importlib.util.find_spec("torchao") is None:
        return f"precision {kind} needs torchao, which is not installed: pip install 'sfserver[quant]', or take bf16"
    if device.type == "cuda":
        is_nvidia = torch.version.hip is None
        able = is_nvidia and torch.cuda.get_device_capability(device) >= LEAST_CAPABILITY[kind]
        return None if able else f"precision {kind} needs {CARDS[kind]}, this is {_name(device)}; take precision bf16"
    if device.type != "cpu":
        return f"precision {kind} needs {CARDS[kind]}, this is {device.type}; take precision bf16"
    return None


def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device)


def as_weight(data: Tensor, scales: Tensor, kind: Kind, dtype: torch.dtype) -> Tensor:
    """What `linear` takes for a weight of `dtype`, from 8 bits [rows, columns] and scales [rows, 1].

    torchao's own tensors: it multiplies by the fastest kernel that device and library have.
    """
    noisy = logging.getLogger("torchao")
    level, _ = noisy.level, noisy.setLevel(logging.ERROR)  # it warns of kernels of its own for cards that are not here
    try:
        from torchao.float8.inference import Float8MMConfig
        from torchao.quantization import PerRow
        from torchao.quantization.quantize_.workflows.float8 import float8_tensor as fp8
        from torchao.quantization.quantize_.workflows.int8 import int8_tensor as int8
    finally:
        noisy.setLevel(level)
    a_row = [1, data.shape[1]]
    if kind == "int8":
        return int8.Int8Tensor(
            data, scales, a_row, dtype, act_quant_kwargs=int8.QuantizeTensorToInt8Kwargs(granularity=PerRow())
        )
    how = Float8MMConfig(use_fast_accum=True)
    of_tokens = fp8.QuantizeTensorToFloat8Kwargs(granularity=PerRow(), mm_config=how)
    return fp8.Float8Tensor(data, scales, block_size=a_row, mm_config=how, act_quant_kwargs=of_tokens, dtype=dtype)


def kind_in(network: nn.Module) -> Kind | None:
    """What the large matrices of a network are kept in; None where they are as they were."""
    matrices: list[Any] = [weight for weight in network.parameters() if is_large_weight(weight)]
    kept = (weight.qdata.dtype for weight in matrices)
    found = next(kept, None)
    return next((kind for kind, dtype in DTYPE_OF.items() if dtype == found), None)


def put_in(network: nn.Module, matrices: dict[str, tuple[Tensor, Tensor]], kind: Kind, dtype: torch.dtype) -> None:
    """Put 8-bit weights and their scales, by name, in place of the network's own."""
    for name, (data, scales) in matrices.items():
        layer = network.get_submodule(name.removesuffix(".weight"))
        layer.weight = nn.Parameter(as_weight(data, scales, kind, dtype), requires_grad=False)


def quantise(network: nn.Module, kind: Kind) -> None:
    """Round all large matrices of a network, which keeps the precision it has elsewhere. One after the other, so that
    beside what it had it takes the memory of one matrix."""
    for name, weight in _large_of(network):
        scales = scales_of(weight, kind)
        put_in(network, {name: (rounded(weight, scales, kind), scales)}, kind, weight.dtype)


def _large_of(network: nn.Module) -> Iterator[tuple[str, Tensor]]:
    names = [name for name, _ in network.named_parameters() if is_large(name)]
    return ((name, network.get_parameter(name).data) for name in names)
