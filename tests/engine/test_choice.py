"""What `auto` takes for a clip, and that what it says is true."""

from __future__ import annotations

import re

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sfwire.errors import RequestError
from sfwire.messages import EngineInfo, Parameter

from sfserver.config import ServerConfig
from sfserver.engine import capacity, draft, table, wan
from sfserver.engine.choice import Wanted, choose
from sfserver.engine.geometry import latent_of
from sfserver.engine.presets import find

CLIP = Wanted(832, 480, 81)
DRAFT = draft.describe(ServerConfig())


def complete(*ids: str) -> list[EngineInfo]:
    """These and the draft engine, as if all files were there."""
    infos = {info.id: attrs.evolve(info, available=True, missing=()) for info in wan.describe(ServerConfig())}
    return [*(infos[name] for name in ids), DRAFT]


def test_on_a_large_gpu_the_best_is_taken_as_it_is() -> None:
    chosen = choose(complete("self-forcing-vace", "self-forcing"), 80 * 10**9, CLIP)
    assert (chosen.engine, chosen.settings) == ("self-forcing-vace", {})
    assert "of 80 GB" in chosen.reason


def test_on_12_gb_a_model_with_vace_is_not_given_up_for_the_draft_engine() -> None:
    chosen = choose(complete("self-forcing-vace"), 12 * 10**9, CLIP)
    assert chosen.engine == "self-forcing-vace"
    assert chosen.settings
    assert "with" in chosen.reason
    assert choose(complete(), 12 * 10**9, CLIP).engine == "draft"


def test_what_a_server_says_auto_mostly_is_counts_smaller_windows_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "gpu_memory_bytes", lambda config: 12 * 10**9)
    infos = complete("self-forcing-vace")
    assert table.choose(infos, ServerConfig())[0] == "self-forcing-vace"
    assert infos[0].memory_bytes > 12 * 10**9, "the control: as it is it would not fit"
    monkeypatch.setattr(table, "gpu_memory_bytes", lambda config: 10**9)
    assert "needs the least memory" in table.choose(infos[:1], ServerConfig())[1]


def test_keys_that_are_kept_twice_for_a_near_keyframe_are_in_the_plan() -> None:
    def taken(**settings: int) -> float:
        sixteen = attrs.evolve(CLIP, keyframes=16, settings=settings)
        found = re.search(r"about ([\d.]+) of", choose(complete("self-forcing"), 80 * 10**9, sixteen).reason)
        assert found
        return float(found[1])

    keys = 15 * 30 * 1560 * 1536 * 2 / 1e9
    assert taken(anchor_reach=3) - taken() == pytest.approx(keys, abs=0.11)
    assert taken(anchor_reach=21) == taken(), "the control: where it is, it is kept once"


def test_before_a_model_is_given_up_the_small_decoder_is_taken_and_a_size_that_fits_is_named() -> None:
    model, draft_engine = complete("self-forcing")
    decoder = Parameter("decoder", "choice", "wan", "", choices=("wan", "tae"))
    infos = [attrs.evolve(model, parameters=(*model.parameters, decoder)), draft_engine]
    assert choose(infos, 10 * 10**9, CLIP).settings["decoder"] == "tae"
    assert choose([model, draft_engine], 10 * 10**9, CLIP).engine == "draft", "the control: it was not fetched"
    on_8 = choose(infos, 8 * 10**9, CLIP)
    assert on_8.engine == "draft"
    assert re.search(r"the GPU has 8 GB; \d+x\d+ would fit", on_8.reason)


def test_with_its_large_matrices_in_8_bits_a_model_gives_up_less() -> None:
    whole, half = (choose(complete("self-forcing"), 12 * 10**9, CLIP, eight_bit=is_half) for is_half in (False, True))
    assert int(half.settings.get("window", 21)) > int(whole.settings.get("window", 21))


def test_a_clip_beyond_81_frames_is_for_a_model_that_rolls_on() -> None:
    long = attrs.evolve(CLIP, num_frames=161)
    chosen = choose(complete("self-forcing", "longlive"), 80 * 10**9, long)
    assert chosen.engine == "longlive"
    assert "Self Forcing 1.3B makes clips of 3 to 81 frames" in chosen.reason
    assert choose(complete("self-forcing"), 80 * 10**9, long).engine == "draft"


def test_without_a_gpu_the_draft_engine_is_taken_and_says_why() -> None:
    chosen = choose(complete("self-forcing"), 0, CLIP)
    assert chosen.engine == "draft"
    assert "there is no GPU" in chosen.reason


def test_pictures_larger_than_a_model_makes_are_planned_as_large_as_it_makes_them() -> None:
    large = choose(complete("self-forcing"), 24 * 10**9, Wanted(3840, 2160, 33))
    assert large.engine == "self-forcing"
    assert choose(complete("self-forcing"), 24 * 10**9, Wanted(1280, 720, 33)).reason == large.reason


def test_a_size_that_is_settled_must_be_one_that_the_engine_makes() -> None:
    odd, huge = (Wanted(width, height, 33, is_exact=True) for width, height in ((830, 480), (3840, 2160)))
    assert "multiples of 16" in choose(complete("self-forcing"), 80 * 10**9, odd).reason
    chosen = choose(complete("self-forcing"), 80 * 10**9, huge)
    assert chosen.engine == "draft"
    assert "at most 921600 pixels" in chosen.reason


def test_what_was_set_by_hand_is_for_an_engine_that_has_it() -> None:
    eased = attrs.evolve(CLIP, settings={"easing": "in"})
    chosen = choose(complete("self-forcing"), 80 * 10**9, eased)
    assert (chosen.engine, chosen.reason.split("; ")[1]) == ("draft", "Self Forcing 1.3B has no setting easing")
    assert choose(complete("self-forcing"), 80 * 10**9, CLIP).engine == "self-forcing", "the control: nothing was set"
    unknown = attrs.evolve(CLIP, settings={"strategy": "look-behind"})
    assert choose(complete("self-forcing"), 80 * 10**9, unknown).engine == "draft"


def test_what_was_set_by_hand_counts_and_is_not_set_otherwise() -> None:
    by_itself = choose(complete("self-forcing"), 12 * 10**9, CLIP)
    assert (by_itself.engine, by_itself.settings) == ("self-forcing", {"window": 12})
    for window in (21, "21"):  # as a client sends it, and as it is typed
        with pytest.raises(RequestError, match=r"the GPU has 12 GB; Draft \(RIFE 4\.25\) has no setting window"):
            choose(complete("self-forcing"), 12 * 10**9, attrs.evolve(CLIP, settings={"window": window}))
    narrow = choose(complete("self-forcing"), 12 * 10**9, attrs.evolve(CLIP, settings={"window": 9}))
    assert (narrow.engine, narrow.settings) == ("self-forcing", {})


def test_under_several_prompts_no_clip_is_made_at_once() -> None:
    several = attrs.evolve(CLIP, prompts=2)
    yardstick = next(i.id for i in wan.describe(ServerConfig()) if (p := find(i.id)) and p.strategies == ("joint",))
    assert choose(complete(yardstick), 80 * 10**9, CLIP).engine == yardstick, "the control: one prompt"
    at_once = choose(complete(yardstick, "self-forcing"), 80 * 10**9, several)
    assert at_once.engine == "self-forcing"
    assert "makes this clip at once, under one prompt" in at_once.reason
    joint = attrs.evolve(several, settings={"strategy": "joint+anchor"})
    with pytest.raises(RequestError, match="makes this clip at once, under one prompt"):
        choose(complete("self-forcing"), 80 * 10**9, joint)


def test_a_clip_of_one_block_has_one_prompt() -> None:
    longer, shorter = (attrs.evolve(CLIP, num_frames=frames, prompts=2) for frames in (17, 13))
    assert choose(complete("self-forcing"), 80 * 10**9, longer).engine == "self-forcing"
    assert choose(complete("self-forcing"), 80 * 10**9, shorter).engine == "draft"
    assert choose(complete("self-forcing"), 80 * 10**9, attrs.evolve(shorter, prompts=1)).engine == "self-forcing"


@settings(max_examples=60, deadline=None)
@given(
    memory=st.integers(6, 40).map(lambda gb: gb * 10**9),
    num_frames=st.integers(3, 81),
    keyframes=st.integers(1, 16),
    width=st.integers(16, 60).map(lambda n: 16 * n),
)
def test_what_is_chosen_fits_and_what_came_before_it_does_not(
    memory: int, num_frames: int, keyframes: int, width: int
) -> None:
    clip = Wanted(width, 480, num_frames, keyframes)
    chosen = choose(complete("self-forcing-vace"), memory, clip)
    preset = find("self-forcing-vace")
    assert preset
    latents = latent_of(num_frames - 1) + 1

    def taken(strategy: str, window: int) -> int:
        return capacity.need_of(preset, strategy, window, latents, keyframes).at(width, 480)

    usual = taken(preset.strategies[0], preset.window)
    if chosen.engine == "draft":
        assert min(usual, taken("joint", preset.window)) > memory
    else:
        strategy = chosen.settings.get("strategy", preset.strategies[0])
        assert taken(strategy, int(chosen.settings.get("window", preset.window))) <= memory
        assert bool(chosen.settings) == (usual > memory)


def test_nothing_that_will_do_is_said_with_the_reasons() -> None:
    infos = complete("self-forcing")[:1]
    with pytest.raises(RequestError, match=r"Self Forcing 1\.3B needs .* GB at the least, the GPU has 2 GB"):
        choose(infos, 2 * 10**9, CLIP)
    with pytest.raises(RequestError, match="no engine is complete"):
        choose([attrs.evolve(info, available=False) for info in infos], 2 * 10**9, CLIP)
