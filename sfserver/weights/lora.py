"""Low-rank additions to a transformer: read in the spellings they are published in, and added to its matrices.

    <module>.lora_up.weight,  <module>.lora_down.weight    <module>.alpha    diffusers of old, kohya, ComfyUI
    <module>.lora_B.weight,   <module>.lora_A.weight                         PEFT
    lora_unet_<module with underscores>.lora_up.weight, ...                  kohya

The module's weight W becomes W + strength (alpha / rank) up @ down; without an alpha the factor is the strength.
Some files add whole differences as well: <module>.diff for a weight, <module>.diff_b for a bias.
"""

from __future__ import annotations

from attrs import define, frozen
from torch import Tensor

from .dialects import dit_name, unwrapped
from .files import Shapes, WeightsError
from .sources import Source

_KOHYA_PREFIX = "lora_unet_"
_PEFT_PREFIXES = ("base_model.model.", "transformer.")
_PARTS = {
    "lora_up.weight": "up",
    "lora_down.weight": "down",
    "lora_B.weight": "up",
    "lora_A.weight": "down",
    "lora_B.default.weight": "up",
    "lora_A.default.weight": "down",
    "alpha": "alpha",
    "diff": "diff",
    "diff_b": "diff_bias",
}


@define
class _Names:
    """Where one module's addition is in the LoRA's file."""

    up: str = ""
    down: str = ""
    alpha: str = ""
    diff: str = ""
    diff_bias: str = ""


@frozen
class Lora:
    """One file of additions, opened. `modules` are under our names."""

    source: Source
    modules: dict[str, _Names]
    strength: float

    def targets(self) -> set[str]:
        """Names of the tensors that it changes."""
        weights = {f"{module}.weight" for module, names in self.modules.items() if names.up or names.diff}
        return weights | {f"{module}.bias" for module, names in self.modules.items() if names.diff_bias}

    def added(self, name: str, value: Tensor) -> Tensor:
        """`value` of the tensor `name` with this addition, in float32; as it is where there is none."""
        module, _, kind = name.rpartition(".")
        names = self.modules.get(module, _Names())
        if kind == "bias" and names.diff_bias:
            return value.float() + self.strength * self.source.tensor(names.diff_bias).float()
        if kind != "weight":
            return value
        if names.diff:
            value = value.float() + self.strength * self.source.tensor(names.diff).float().reshape(value.shape)
        return self._with_low_rank(names, value) if names.up else value

    def _with_low_rank(self, names: _Names, value: Tensor) -> Tensor:
        up, down = (self.source.tensor(name).float() for name in (names.up, names.down))
        rank = down.shape[0]
        scale = float(self.source.tensor(names.alpha)) / rank if names.alpha else 1.0
        delta = up.flatten(1) @ down.flatten(1)
        if delta.numel() != value.numel():
            raise WeightsError(
                f"{self.source.path}: {names.up} makes a {tuple(delta.shape)} for a weight of {tuple(value.shape)}; "
                "it was made for another size of the model"
            )
        return value.float() + self.strength * scale * delta.reshape(value.shape)


def open_lora(source: Source, base: Shapes, strength: float = 1.0) -> Lora:
    """Read a LoRA for a transformer with the tensors `base`. Raises WeightsError where it does not fit that."""
    by_underscores = {name.removesuffix(".weight").replace(".", "_"): name.removesuffix(".weight") for name in base}
    modules: dict[str, _Names] = {}
    for name in source.shapes:
        module, part = _split(source, name)
        if module.startswith(_KOHYA_PREFIX):
            flat = module.removeprefix(_KOHYA_PREFIX)
            module = by_underscores.get(flat, flat)
        else:
            module = _module_name(module)
        setattr(modules.setdefault(module, _Names()), part, name)
    lora = Lora(source, modules, strength)
    _check(lora, base)
    return lora


def _split(source: Source, name: str) -> tuple[str, str]:
    for suffix, part in _PARTS.items():
        if name.endswith("." + suffix):
            return name.removesuffix("." + suffix), part
    raise WeightsError(f"{source.path}: {name} is in no spelling of LoRA that we know ({', '.join(_PARTS)})")


def _module_name(module: str) -> str:
    module = unwrapped(module)
    for prefix in _PEFT_PREFIXES:
        module = unwrapped(module.removeprefix(prefix))
    return dit_name(module + ".").removesuffix(".")


def _check(lora: Lora, base: Shapes) -> None:
    path = lora.source.path
    for module, names in lora.modules.items():
        if bool(names.up) != bool(names.down):
            raise WeightsError(f"{path}: {module} has one half of its two matrices; the file is incomplete")
    strangers = sorted(lora.targets() - set(base))
    if strangers:
        raise WeightsError(
            f"{path}: changes {len(strangers)} tensors that the transformer does not have, the first is "
            f"{strangers[0]}; it was made for another model"
        )
    if not lora.targets():
        raise WeightsError(f"{path}: changes nothing; it is no LoRA")
