"""The memory plan against what full-size networks ask their allocator for, counted call by call on the meta device."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from attrs import evolve

from sfserver.bench import counted
from sfserver.engine import capacity
from sfserver.engine.capacity import Decoder, Need
from sfserver.engine.geometry import plan
from sfserver.model.config import WAN_1_3B
from sfserver.model.eightbit import Kind

SIZE = 832, 480
GEOMETRY = plan(*SIZE, num_frames=81, per_block=3)
CONFIG = evolve(WAN_1_3B, layers=2)
"""Two layers show what is alive at once; all thirty would show it fifteen times."""


@cache
def decoding_bytes(decoder: Decoder) -> tuple[int, int]:
    return counted.decoding_bytes(counted.codec(decoder), *SIZE)


def planned(window: int, per_pass: int, decoder: Decoder = "wan") -> Need:
    return Need(CONFIG, per_pass, window, 0, element_bytes=2, decoder=decoder)


def beyond_weights(need: Need, beside: bool = False) -> int:
    text = 2 * CONFIG.layers * CONFIG.text_len * CONFIG.dim * 2
    return need.at(*SIZE, beside) - need.weight_bytes - text - capacity.OVERHEAD_BYTES


@pytest.mark.parametrize("decoder", ["wan", "tae"])
@pytest.mark.parametrize(("window", "per_pass"), [(21, 3), (12, 3), (3, 1), (0, 21)])
def test_the_plan_is_within_a_tenth_of_what_is_counted(window: int, per_pass: int, decoder: Decoder) -> None:
    cache, making = counted.pass_bytes(CONFIG, GEOMETRY, per_pass, window)
    state, decoding = decoding_bytes(decoder)
    need = planned(window, per_pass, decoder)
    assert beyond_weights(need) == pytest.approx(cache + max(state + making, decoding), rel=0.1)
    assert beyond_weights(need, beside=True) == pytest.approx(cache + decoding + making, rel=0.1)


@pytest.mark.parametrize("kind", ["fp8", "int8"])
def test_rounding_before_a_product_in_8_bits_is_planned(kind: Kind) -> None:
    """By what fp8 takes; int8 takes less of the rounding, which is little of all."""
    pytest.importorskip("torchao", reason="8 bits are an extra, quant")
    cache, making = counted.pass_bytes(CONFIG, GEOMETRY, 3, 21, kind)
    _, decoding = decoding_bytes("tae")
    need = evolve(planned(21, 3, "tae"), eight_bit=True)
    strayed = beyond_weights(need, beside=True) - (cache + decoding + making)
    whole = evolve(need, config=WAN_1_3B).at(*SIZE, beside=True)
    assert abs(strayed) <= 0.1 * whole
    assert strayed >= -0.02 * whole, "what is planned is there"
    assert beyond_weights(need) > beyond_weights(planned(21, 3, "tae")), "the control: without rounding it takes less"


def test_encoding_for_the_vace_branch_is_counted_as_well() -> None:
    state, most = counted.encoding_bytes(counted.codec("wan"), *SIZE)
    elements = capacity.ENCODER_STATE_ELEMENTS + capacity.ENCODER_WORK_ELEMENTS
    assert elements * SIZE[0] * SIZE[1] * 2 == pytest.approx(most, rel=0.1)
    assert state < most


def test_the_counter_knows_views_from_memory_and_forgets_what_is_freed() -> None:
    with counted.counting() as peak:
        one = torch.zeros(100, dtype=torch.uint8)
        view = one.view(10, 10)[1:]
        two = one + one
        del one, view
        three = two.add_(1)
        del two, three
        torch.zeros(50, dtype=torch.uint8)
    assert peak.most == 200
    assert peak.now == 0
