"""A model folder's components as networks on a device. Opens safetensors alone, and only files as they were written.

The networks are built on the meta device, so that loading costs each weight once and no initial values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import torch
from attrs import evolve
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from ..model import eightbit
from ..model.config import DitConfig
from ..model.dit import Dit
from ..model.eightbit import Kind
from ..model.tae import Tae, TaeConfig
from ..model.text import TEXT_ROWS, TextConfig, TextEncoder, Tokenizer, load_tokenizer, umt5_stack
from ..model.vace import Vace
from ..model.vae import VaeConfig, WanVae
from .files import Shapes, WeightsError, safetensors_shapes, sha256_of
from .identify import compared, model_name
from .manifest import Component, describe_folder, size_problem

Network = TypeVar("Network", bound=nn.Module)
Transformer = TypeVar("Transformer", Dit, Vace)
Config = Mapping[str, Any]
Matrices = dict[str, tuple[Tensor, Tensor]]


def load_transformer(
    dit_folder: Path,
    vace_folder: Path | None,
    device: torch.device,
    dtype: torch.dtype,
    expect: DitConfig | None = None,
    eight_bit: Kind | None = None,
) -> tuple[Dit, Vace | None]:
    """The transformer, and the VACE branch of another folder, or of the same. Large matrices are in `dtype`, or rounded
    to 8 bits.

    Raises WeightsError, also where they are not of one size, or not of the size that the preset expects.
    """
    component = component_of(dit_folder, "dit")
    vace_component = component_of(vace_folder, "vace") if vace_folder else None
    wanted = expect.dim if expect else component.config.get("dim")
    _check_width(dit_folder, component, wanted)
    if vace_folder and vace_component:
        _check_width(vace_folder, vace_component, wanted)
        if vace_component.config.get("layers") != component.config.get("layers"):
            raise WeightsError(
                f"{vace_folder / vace_component.file}: was made for {vace_component.config.get('layers')} layers, the "
                f"transformer has {component.config.get('layers')}; take the VACE branch of the same model"
            )
        told = {"vace_layers": vace_component.config.get("vace_layers", ())}
        component = evolve(component, config={**component.config, **told})
    dit = _transformer(dit_folder, component, "dit", Dit, device, dtype, eight_bit)
    if not (vace_folder and vace_component):
        return dit, None
    return dit, _transformer(vace_folder, vace_component, "vace", Vace, device, dtype, eight_bit)


def load_clean(folder: Path, like: Dit, device: torch.device, dtype: torch.dtype, eight_bit: Kind | None = None) -> Dit:
    """The transformer that makes the clean passes of another. Raises WeightsError, also if they are of two sizes."""
    component = component_of(folder, "clean")
    dit = _transformer(folder, component, "clean", Dit, device, dtype, eight_bit)
    if evolve(dit.config, vace_layers=()) != evolve(like.config, vace_layers=()):
        message = "is of another size than the transformer beside it; convert both from one file"
        raise WeightsError(f"{folder / component.file}: {message}")
    return dit


def load_vae(folder: Path, device: torch.device, dtype: torch.dtype) -> WanVae:
    """Raises WeightsError."""
    vae = _loaded(folder, component_of(folder, "vae"), "vae", WanVae, device).to(dtype)
    vae.use_channels_last()
    return vae


def load_tae(folder: Path, device: torch.device, dtype: torch.dtype) -> Tae:
    """Raises WeightsError."""
    tae = _loaded(folder, component_of(folder, "tae"), "tae", Tae, device).to(dtype)
    tae.use_channels_last()
    return tae


def load_text_encoder(
    folder: Path, tokenizer_folder: Path, device: torch.device, dtype: torch.dtype, most_tokens: int = TEXT_ROWS
) -> TextEncoder:
    """The text encoder of one folder with the tokenizer of another, or of the same. Raises WeightsError.

    So does the first prompt that is encoded, for the encoder itself is loaded then.
    """
    return TextEncoder(
        lambda: _loaded(folder, component_of(folder, "text"), "text", nn.Module, device).to(dtype),
        _tokenizer(tokenizer_folder),
        most_tokens,
    )


def text_identity(folder: Path, tokenizer_folder: Path) -> str:
    """Names the weights and the tokenizer that embeddings come from, for `PromptCache`. Opens neither."""
    return component_of(folder, "text").sha256 + component_of(tokenizer_folder, "tokenizer").sha256


def component_of(folder: Path, role: str) -> Component:
    """Raises WeightsError where the folder has none."""
    components = describe_folder(folder).components
    if role not in components:
        raise WeightsError(f"{folder}: holds no {role}, only {', '.join(components) or 'nothing'}; fetch or convert it")
    return components[role]


def network(role: str, config: Config) -> nn.Module:
    """An empty network on the meta device. Raises TypeError or ValueError for sizes that make no network."""
    try:
        with torch.device("meta"):
            return _BUILD[role]({name: tuple(v) if isinstance(v, list) else v for name, v in config.items()})
    except (RuntimeError, ZeroDivisionError) as error:  # what torch says of lengths below zero, and Python of no heads
        raise ValueError(str(error)) from None


def expected_shapes(role: str, config: Config) -> Shapes:
    """Names and shapes of the tensors that such a network has."""
    return {name: tuple(value.shape) for name, value in network(role, config).state_dict().items()}


_BUILD: dict[str, Callable[[dict[str, Any]], nn.Module]] = {
    "dit": lambda sizes: Dit(DitConfig(**sizes)),
    "clean": lambda sizes: Dit(DitConfig(**sizes)),
    "vace": lambda sizes: Vace(DitConfig(**sizes)),
    "vae": lambda sizes: WanVae(VaeConfig(**sizes)),
    "tae": lambda sizes: Tae(TaeConfig(**sizes)),
    "text": lambda sizes: umt5_stack(TextConfig(**sizes)),
}


def _transformer(
    folder: Path,
    component: Component,
    role: str,
    kind: type[Transformer],
    device: torch.device,
    dtype: torch.dtype,
    eight_bit: Kind | None,
) -> Transformer:
    """One whose matrices are computed in `dtype`, or in 8 bits, however the file keeps them."""
    kept = eightbit.kind_of(component.dtype)
    if kept and eight_bit not in (None, kept):
        path = folder / component.file
        raise WeightsError(
            f"{path}: is kept in {kept}; take precision {kept} or auto, or convert it anew as {eight_bit}"
        )
    net, matrices = _read(folder, component, role, kind, device)
    if kept and not eight_bit:
        for name, (data, scales) in matrices.items():
            net.get_submodule(name.removesuffix(".weight")).weight = nn.Parameter(
                (data.float() * scales).to(dtype), requires_grad=False
            )
    net.set_compute_dtype(dtype)
    if kept and eight_bit:
        eightbit.put_in(net, matrices, eight_bit, dtype)
    elif eight_bit:
        eightbit.quantise(net, eight_bit)
    return net


def _loaded(folder: Path, component: Component, role: str, kind: type[Network], device: torch.device) -> Network:
    return _read(folder, component, role, kind, device)[0]


def _read(
    folder: Path, component: Component, role: str, kind: type[Network], device: torch.device
) -> tuple[Network, Matrices]:
    """A network, and those of its matrices that its file keeps in 8 bits, with their scales: these are yet to be put
    in, and have no memory meanwhile."""
    path = checked_file(folder, component)
    try:
        net = network(role, component.config)
    except (TypeError, ValueError) as error:
        raise WeightsError(f"{folder}: describes a {role} that cannot be built ({error}); convert it again") from None
    assert isinstance(net, kind)
    own = {name: tuple(value.shape) for name, value in net.state_dict().items()}
    large = {name for name in own if eightbit.is_large(name)} if eightbit.kind_of(component.dtype) else set[str]()
    misfit = compared(role, safetensors_shapes(path), with_scales(own, large))
    if misfit:
        raise WeightsError(f"{path}: {misfit}; convert it again")
    try:
        with safe_open(path, framework="pt", device=str(device)) as file:
            net.load_state_dict({name: file.get_tensor(name) for name in own.keys() - large}, strict=False, assign=True)
            matrices = {name: (file.get_tensor(name), file.get_tensor(name + eightbit.SCALE)) for name in large}
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{path}: cannot be read ({error}); convert or fetch it again") from None
    return net.eval().requires_grad_(False), matrices


def with_scales(shapes: Shapes, large: Iterable[str]) -> Shapes:
    """What a file holds whose `large` matrices are in 8 bits."""
    return {**shapes, **{name + eightbit.SCALE: (shapes[name][0], 1) for name in large}}


def checked_file(folder: Path, component: Component) -> Path:
    """The component's file, once it was found to be what was written. Raises WeightsError.

    Hashing 3 GB takes longer than loading them, so a file that nobody has touched since is taken for what it was; one
    that was copied, restored or changed is hashed.
    """
    reason = size_problem(folder, component)
    path = folder / component.file
    if reason:
        raise WeightsError(reason)
    mtime_ns = path.stat().st_mtime_ns
    if mtime_ns != component.mtime_ns and _hash(path, mtime_ns) != component.sha256:
        raise WeightsError(f"{path}: is not what was written, its hash differs; convert or fetch it again")
    return path


@cache
def _hash(path: Path, mtime_ns: int) -> str:
    """Once per process and file: the text encoder, the largest file, is loaded for each new prompt."""
    return sha256_of(path)


def _check_width(folder: Path, component: Component, wanted: Any) -> None:
    dim = component.config.get("dim")
    if dim != wanted:
        raise WeightsError(
            f"{folder / component.file}: is of a {model_name(dim)} model where {model_name(wanted)} is needed; "
            "choose the preset that fits it"
        )


def _tokenizer(folder: Path) -> Tokenizer:
    path = checked_file(folder, component_of(folder, "tokenizer"))
    try:
        return load_tokenizer(path)
    except (OSError, ValueError) as error:
        raise WeightsError(str(error)) from None
