"""Large matrices in 8 bits: what that changes of a flow, what is kept in files, and what a machine says that cannot."""

from __future__ import annotations

import json
import shutil
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from attrs import evolve
from networks import at, latents, random_weights, table
from torch import Tensor, nn

pytest.importorskip("torchao", reason="8 bits are an extra, quant")

from sfserver.bench.tiny import randomised
from sfserver.config import load_config
from sfserver.engine import capacity, small_world, wan_load
from sfserver.engine.presets import SELF_FORCING_VACE, SGF_PLUS, SMALL_WORLD
from sfserver.model import eightbit
from sfserver.model.config import TOY, TOY_VACE, DitConfig
from sfserver.model.dit import Dit
from sfserver.model.eightbit import Kind
from sfserver.model.vace import Vace
from sfserver.weights import loading
from sfserver.weights.convert import Wish, convert
from sfserver.weights.files import WeightsError, safetensors_shapes
from sfserver.weights.manifest import describe_folder

CPU = torch.device("cpu")
KINDS: tuple[Kind, ...] = ("int8", "fp8")
DEEP = evolve(TOY, layers=30)
WORTH = 0.02
"""Of the flow's rms."""


def flow(dit: Dit) -> Tensor:
    words = torch.randn(1, 5, dit.config.text_dim, generator=torch.Generator().manual_seed(0))
    return dit(latents(3), at(937.5), dit.embed_prompt(words), table(3).at(0, 3))


def strayed(one: Tensor, other: Tensor) -> float:
    return float((one - other).norm() / other.norm())


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_thirty_layers_stray_by_less_than_two_percent_and_their_matrices_are_in_8_bits(kind: Kind) -> None:
    exact = randomised(Dit(DEEP), 1)
    rounded = deepcopy(exact)
    eightbit.quantise(rounded, kind)
    assert 1e-4 < strayed(flow(rounded), flow(exact)) <= WORTH, "not at all would be no rounding"
    large = [weight for name, weight in rounded.named_parameters() if eightbit.is_large(name)]
    assert {weight.qdata.dtype for weight in large} == {eightbit.DTYPE_OF[kind]}
    assert sum(weight.numel() for weight in large) == capacity.large_matrices(DEEP)[0]
    assert rounded.compute_dtype == torch.float32, "what is around them is told nothing"


@torch.no_grad()
def test_a_scale_for_each_row_is_what_keeps_it_there() -> None:
    """The control: rows of unlike size under one scale for all. Not so unlike that rounding decides everything."""
    torch.manual_seed(1)  # of the biases, which are left as they are made
    exact = randomised(Dit(DEEP), 1)
    for name, weight in exact.named_parameters():
        if eightbit.is_large(name):
            weight[0] *= 10
    by_row, by_matrix = deepcopy(exact), deepcopy(exact)
    eightbit.quantise(by_row, "int8")
    for name, weight in list(by_matrix.named_parameters()):
        if eightbit.is_large(name):
            one = eightbit.scales_of(weight, "int8").amax().expand(len(weight), 1).contiguous()
            eightbit.put_in(by_matrix, {name: (eightbit.rounded(weight, one, "int8"), one)}, "int8", torch.float32)
    assert strayed(flow(by_matrix), flow(exact)) > 2 * strayed(flow(by_row), flow(exact))


@torch.no_grad()
def test_under_weights_that_double_every_rounding_int8_holds_as_well() -> None:
    """Weights whose layers all answer as loudly as what they were told: rounding meets no quiet residual stream. There,
    the three bits of an fp8 number show: 5 %."""
    exact, rounded, coarse = (random_weights(Dit(DEEP), 1) for _ in range(3))
    eightbit.quantise(rounded, "int8")
    eightbit.quantise(coarse, "fp8")
    assert strayed(flow(rounded), flow(exact)) <= WORTH < strayed(flow(coarse), flow(exact)) < 0.08


@pytest.mark.parametrize("config", [TOY, TOY_VACE, evolve(TOY_VACE, ffn_dim=224)], ids=["plain", "vace", "wide"])
def test_weights_are_planned_to_the_byte(config: DitConfig) -> None:
    networks: list[nn.Module] = [Dit(config), *([Vace(config)] if config.vace_layers else [])]
    for network in networks:
        eightbit.quantise(network.requires_grad_(False), "int8")
    held = capacity.VAE_PARAMETERS * 4
    for network in networks:
        for weight in network.parameters():
            inside = (weight.qdata, weight.scale) if eightbit.is_large_weight(weight) else (weight,)
            held += sum(part.numel() * part.itemsize for part in inside)
    assert capacity.weight_bytes(config, 4, eight_bit=True) == held


def test_weights_of_the_real_models_take_about_half() -> None:
    for preset in (SELF_FORCING_VACE, SGF_PLUS):
        whole, half = (
            capacity.weight_bytes(preset.dit, 2, preset.transformers, eight_bit=eight_bit) - 2 * capacity.VAE_PARAMETERS
            for eight_bit in (False, True)
        )
        assert 0.5 < half / whole < 0.53


def with_its_sizes(file: Path) -> Path:
    """Of a width that no published model has: its heads are in no tensor's shape."""
    config = SMALL_WORLD.dit
    file.with_name("config.json").write_text(json.dumps({"num_heads": config.heads, "text_len": config.text_len}))
    return file


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The small world's transformer, which has learnt something, as it is and in 8 bits."""
    root = tmp_path_factory.mktemp("models")
    source = with_its_sizes(Path(shutil.copy(small_world.FOLDER / "dit.safetensors", root)))
    for kind in KINDS:
        convert(source, root / kind, Wish(preset=SMALL_WORLD.id, roles=("dit",), eight_bit=kind))
    return {"": small_world.FOLDER, **{kind: root / kind for kind in KINDS}}


def widened_weight(weight: Tensor) -> Tensor:
    return weight.dequantize() if eightbit.is_large_weight(weight) else weight


def load(folder: Path, eight_bit: Kind | None) -> Dit:
    return loading.load_transformer(folder, None, CPU, torch.float32, SMALL_WORLD.dit, eight_bit)[0]


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_what_convert_keeps_is_what_is_computed_by_and_half_as_large(kind: Kind, folders: dict[str, Path]) -> None:
    at_load, from_file, exact = load(folders[""], kind), load(folders[kind], kind), load(folders[""], None)
    for one, other in zip(from_file.parameters(), at_load.parameters(), strict=True):
        assert torch.equal(one.scale, other.scale) if eightbit.is_large_weight(one) else torch.equal(one, other)
        assert torch.equal(widened_weight(one), widened_weight(other))
    assert strayed(flow(from_file), flow(exact)) <= WORTH
    widened = load(folders[kind], None)
    assert not any(eightbit.is_large_weight(weight) for weight in widened.parameters())
    assert strayed(flow(widened), flow(exact)) <= WORTH
    component = describe_folder(folders[kind]).components["dit"]
    assert component.dtype == kind
    large, rows = capacity.large_matrices(SMALL_WORLD.dit)
    shapes = safetensors_shapes(folders[kind] / component.file)
    assert sum(name.endswith(eightbit.SCALE) for name in shapes) == 10 * SMALL_WORLD.dit.layers
    assert describe_folder(folders[""]).components["dit"].bytes - component.bytes > large - 8 * rows


def test_a_file_of_one_kind_is_not_rounded_a_second_time(folders: dict[str, Path]) -> None:
    with pytest.raises(WeightsError, match=r"is kept in int8; take precision int8 or auto, or convert it anew as fp8"):
        load(folders["int8"], "fp8")


def test_a_file_in_8_bits_can_be_converted_back(folders: dict[str, Path], tmp_path: Path) -> None:
    convert(with_its_sizes(folders["int8"] / "dit.safetensors"), tmp_path, Wish(roles=("dit",), dtype=torch.float32))
    assert torch.equal(
        load(tmp_path, None).blocks[0].ffn[0].weight, load(folders["int8"], None).blocks[0].ffn[0].weight
    )


def test_precision_auto_goes_by_the_file_and_a_machine_that_cannot_says_what_to_take(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = load_config({"precision": "fp8", "device": "cpu"})
    auto = load_config({"device": "cpu"})
    assert wan_load.choose_eight_bit(asked, "bfloat16", CPU) == "fp8"
    assert wan_load.choose_eight_bit(auto, "bfloat16", CPU) is None
    assert wan_load.choose_eight_bit(auto, "int8", CPU) == "int8"
    assert "RTX 40" in str(eightbit.why_not("fp8", torch.device("mps")))
    monkeypatch.setattr(eightbit.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(Exception, match=r"needs torchao.*pip install 'sfserver\[quant\]', or take bf16"):
        wan_load.choose_eight_bit(asked, "bfloat16", CPU)
    assert wan_load.choose_eight_bit(auto, "int8", CPU) is None, "computed in more bits instead"


@pytest.mark.parametrize(
    ("capability", "able"), [((7, 5), ()), ((8, 0), ("int8",)), ((8, 6), ("int8",)), ((8, 9), KINDS), ((12, 0), KINDS)]
)
def test_a_card_is_asked_for_what_it_knows(
    capability: tuple[int, int], able: tuple[Kind, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a card")
    found = {kind: eightbit.why_not(kind, torch.device("cuda")) for kind in KINDS}
    assert tuple(kind for kind in KINDS if found[kind] is None) == able
    assert all("this is a card; take precision bf16" in reason for reason in found.values() if reason)
