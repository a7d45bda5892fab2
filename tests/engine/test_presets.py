"""The table of models: complete, consistent, and true to memory that can be counted."""

from __future__ import annotations

import ast
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from attrs import evolve
from sfwire.limits import MAX_FRAMES

from sfserver.config import ServerConfig
from sfserver.engine import capacity, presets, wan
from sfserver.engine.draft import WEIGHTS
from sfserver.engine.geometry import plan
from sfserver.engine.noise import make_schedule
from sfserver.engine.presets import LONGLIVE, PRESETS, SELF_FORCING, SGF, SGF_PLUS, TRAINED_LATENTS, Preset, find
from sfserver.engine.rollout import Memory, cache_shape
from sfserver.model.config import TOY_VACE, WAN_1_3B, WAN_1_3B_VACE, WAN_14B, DitConfig
from sfserver.model.dit import Dit
from sfserver.model.rife import PAD_MULTIPLE_PX
from sfserver.model.vace import Vace
from sfserver.model.vae import VaeConfig, WanVae


@pytest.mark.parametrize("preset", PRESETS, ids=lambda preset: preset.id)
def test_a_preset_is_consistent(preset: Preset) -> None:
    assert find(preset.id) is preset
    assert preset.window >= preset.sink + preset.per_block, "a block must fit beside the sink"
    assert preset.window <= TRAINED_LATENTS
    assert preset.frames[1] <= MAX_FRAMES
    assert {"dit", "vae", "text", "tokenizer"} <= {part.role for part in preset.parts}
    assert bool(preset.dit.vace_layers) == (preset.part("vace") is not None)
    assert preset.licence
    assert make_schedule(preset.steps, preset.shift, preset.warp).timesteps[0] == pytest.approx(1000)


def unexplained(source: str) -> list[str]:
    """Defaults of `Preset`, and presets, below which nothing says why they are so."""
    tree = ast.parse(source)
    (fields,) = (node.body for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "Preset")
    defaults = [(a, b) for a, b in pairwise([*fields, None]) if isinstance(a, ast.AnnAssign) and a.value]
    made = [(a, b) for a, b in pairwise([*tree.body, None]) if isinstance(a, ast.Assign) and _makes_a_preset(a.value)]
    return [
        ast.unparse(a).splitlines()[0]
        for a, b in [*defaults, *made]
        if not (isinstance(b, ast.Expr) and isinstance(b.value, ast.Constant) and isinstance(b.value.value, str))
    ]


def _makes_a_preset(value: ast.expr) -> bool:
    makers = ("Preset", "evolve", "_sgf_plus")
    return isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id in makers


def test_every_default_says_why_it_is_this_one() -> None:
    source = Path(presets.__file__).read_text("utf-8")
    assert unexplained(source) == []
    silent = source.replace('"""As Self Forcing was trained, and most that came after it."""', "")
    assert unexplained(silent) == ["per_block: int = 3"], "the control"


def test_ids_are_different() -> None:
    assert len({preset.id for preset in PRESETS}) == len(PRESETS)
    assert find("nothing") is None


def test_disputed_and_non_commercial_licences_are_confirmed() -> None:
    confirmed = {preset.id for preset in PRESETS if preset.confirm}
    assert confirmed == {"self-forcing", "self-forcing-vace", "causvid"}


def test_a_missing_model_says_what_was_looked_for_and_what_to_run(tmp_path) -> None:
    infos = wan.describe(ServerConfig(models_dir=tmp_path))
    assert [info.id for info in infos] == [preset.id for preset in PRESETS]
    for info in infos:
        assert not info.available
        assert all(str(tmp_path) in what and f"sfserver fetch {info.id}" in what for what in info.missing)


@pytest.mark.parametrize("config", [WAN_1_3B, WAN_1_3B_VACE, WAN_14B, TOY_VACE])
def test_counted_parameters_are_those_of_the_modules(config: DitConfig) -> None:
    with torch.device("meta"):
        modules = [Dit(config), Vace(config)] if config.vace_layers else [Dit(config)]
    assert capacity.dit_parameters(config) == sum(p.numel() for module in modules for p in module.parameters())


def test_a_second_transformer_is_counted() -> None:
    with torch.device("meta"):
        transformer, branch, vae = Dit(WAN_1_3B), Vace(WAN_1_3B_VACE), WanVae(VaeConfig())
    dit, vace, codec = (sum(p.numel() for p in m.parameters()) for m in (transformer, branch, vae))
    assert capacity.weight_bytes(WAN_1_3B, 2, transformers=2) == pytest.approx(2 * (2 * dit + codec), rel=1e-3)
    assert capacity.weight_bytes(WAN_1_3B_VACE, 2, transformers=2) == pytest.approx(
        2 * (2 * dit + vace + codec), rel=1e-3
    )
    assert capacity.usual_bytes(SGF_PLUS) - capacity.usual_bytes(SGF) >= 2 * dit


def test_counted_cache_is_the_cache() -> None:
    geometry = plan(832, 480, 81, 3)
    shape = cache_shape(WAN_1_3B, geometry, Memory(12, sink=3), pinned=1)
    need = capacity.Need(WAN_1_3B, 3, shape.seats, 0, element_bytes=2)
    assert need.cache_bytes(832, 480) == shape.nbytes(2)
    assert shape.nbytes(2) / shape.seats == pytest.approx(0.2875e9, rel=1e-3), "bytes a latent, as published"


def test_counted_states_of_the_vae_are_its_states() -> None:
    with torch.device("meta"), torch.no_grad():
        vae = WanVae(VaeConfig())
        encoder, decoder = vae.new_encoder_state(), vae.new_decoder_state()
        vae.encode(torch.zeros(1, 9, 3, 48, 64), encoder)
        vae.decode(torch.zeros(1, 3, 16, 6, 8), decoder)
    assert encoder.nbytes == 4 * 48 * 64 * capacity.ENCODER_STATE_ELEMENTS
    assert decoder.nbytes == pytest.approx(4 * 48 * 64 * capacity.VAE_STATE_ELEMENTS, rel=1e-3)


def test_what_the_draft_engine_needs_beside_the_model_is_counted() -> None:
    plain = capacity.Need(WAN_1_3B, 3, 21, 0, element_bytes=2)
    drafted = evolve(plain, drafted=True)
    assert drafted.at(832, 480) - plain.at(832, 480) == capacity.DRAFT_WEIGHT_BYTES, "its work is over before the cache"
    shallow = capacity.Need(evolve(WAN_1_3B, layers=1), 1, 2, 0, element_bytes=2, decoder="tae", drafted=True)
    text = 2 * WAN_1_3B.text_len * WAN_1_3B.dim * 2
    its_own = capacity.DRAFT_WEIGHT_BYTES + capacity.draft_bytes(64, 64)
    assert shallow.beyond_weights(64, 64) == text + its_own, "it is the most where the model has little to hold"
    size = WEIGHTS.stat().st_size
    assert size <= capacity.DRAFT_WEIGHT_BYTES < 1.3 * size
    assert capacity.DRAFT_PAD_PX == PAD_MULTIPLE_PX


def test_a_shorter_window_needs_less_memory() -> None:
    assert capacity.usual_bytes(LONGLIVE) < capacity.usual_bytes(SELF_FORCING) < 16e9


def test_largest_size_fits_and_the_next_does_not() -> None:
    geometry = plan(832, 480, 81, 3)
    need = capacity.Need(WAN_1_3B, 3, 21, 0, element_bytes=2)
    free = 8 * 10**9
    size = capacity.largest_size(need, geometry, free)
    assert size
    width, height = size
    assert need.at(width, height) <= free < need.at(width + 16, round((width + 16) * 480 / 832 / 16) * 16)
    assert (width % 16, height % 16) == (0, 0)
    assert capacity.largest_size(need, geometry, 10**9) is None
