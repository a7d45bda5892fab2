"""Low-rank additions to a transformer: read in the spellings they are published in, and added to its matrices.

    <module>.lora_up.weight,  <module>.lora_down.weight    <module>.alpha    diffusers of old, kohya, ComfyUI
    <module>.lora_B.weight,   <module>.lora_A.weight                         PEFT
    lora_unet_<module with underscores>.lora_up.weight, ...                  kohya, some with one underscore more

The module's weight W becomes W + strength (alpha / rank) up @ down; without an alpha the factor is the strength.
Some files add whole differences as well: <module>.diff for a weight, <module>.diff_b for a bias.
"""

from __future__ import annotations

from math import prod
from pathlib import Path

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
        """`value` of the tensor `name` with this addition, in float32; as it is where there is none.

        Raises WeightsError where the addition holds no floats, or the sum is not finite and `value` is.
        """
        module, _, kind = name.rpartition(".")
        names = self.modules.get(module, _Names())
        additions = {"weight": [names.diff, names.up], "bias": [names.diff_bias]}.get(kind, [])
        changed = value
        for addition in filter(None, additions):
            delta = self._low_rank(names) if addition == names.up else self._values(addition)
            changed = changed.float() + self.strength * delta.reshape(value.shape)
        if changed is not value and not changed.isfinite().all() and value.float().isfinite().all():
            raise WeightsError(
                f"{self.source.path}: makes {name} not finite at strength {self.strength:g}; the file is damaged, "
                "download it again, or the strength is too large"
            )
        return changed

    def _low_rank(self, names: _Names) -> Tensor:
        up, down = self._values(names.up).flatten(1), self._values(names.down).flatten(1)
        scale = self.source.tensor(names.alpha).item() / len(down) if names.alpha else 1.0
        return scale * up @ down

    def _values(self, name: str) -> Tensor:
        values = self.source.tensor(name)
        if not values.is_floating_point():
            raise WeightsError(
                f"{self.source.path}: {name} is {values.dtype}; take the LoRA in a floating-point format"
            )
        return values.float()


def open_lora(source: Source, base: Shapes, strength: float = 1.0) -> Lora:
    """Read a LoRA for a transformer with the tensors `base`. Raises WeightsError where it does not fit that."""
    by_underscores = {name.removesuffix(".weight").replace(".", "_"): name.removesuffix(".weight") for name in base}
    modules: dict[str, _Names] = {}
    for name in source.shapes:
        module, part = _split(source, name)
        if module.startswith(_KOHYA_PREFIX):
            flat = module.removeprefix(_KOHYA_PREFIX).removeprefix("_")
            module = by_underscores.get(flat, flat)
        else:
            module = _module_name(module)
        names = modules.setdefault(module, _Names())
        if getattr(names, part):
            raise WeightsError(
                f"{source.path}: {getattr(names, part)} and {name} are the same part of {module}; take a file that "
                "holds one LoRA"
            )
        setattr(names, part, name)
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
    for module, names in lora.modules.items():
        _check_shapes(lora, module, names, base)


def _check_shapes(lora: Lora, module: str, names: _Names, base: Shapes) -> None:
    path, shapes = lora.source.path, lora.source.shapes
    if names.up:
        up, down, weight = shapes[names.up], shapes[names.down], base[f"{module}.weight"]
        if len(up) < 2 or len(down) < 2 or prod(up[1:]) != down[0] or not down[0]:
            raise WeightsError(
                f"{path}: {names.up} is {up} and {names.down} is {down}, which share no rank; download it again"
            )
        _check_fits(path, names.up, (up[0], prod(down[1:])), weight)
    if names.diff:
        _check_fits(path, names.diff, shapes[names.diff], base[f"{module}.weight"])
    if names.diff_bias:
        _check_fits(path, names.diff_bias, shapes[names.diff_bias], base[f"{module}.bias"])
    if names.alpha and prod(shapes[names.alpha]) != 1:
        raise WeightsError(
            f"{path}: {names.alpha} is {shapes[names.alpha]} where one number belongs; download it again"
        )


def _check_fits(path: Path, name: str, made: tuple[int, ...], wanted: tuple[int, ...]) -> None:
    """Rows count, and how many values each has: convolutions are often written as matrices."""
    if not made or (made[0], prod(made[1:])) != (wanted[0], prod(wanted[1:])):
        raise WeightsError(
            f"{path}: {name} makes a {made} for a weight of {wanted}; it was made for another size of the model"
        )
