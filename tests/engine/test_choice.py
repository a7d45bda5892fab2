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
from sfserver.engine.cards import GIB, USABLE
from sfserver.engine.choice import Wanted, choose
from sfserver.engine.geometry import latent_of
from sfserver.engine.presets import find

CLIP = Wanted(832, 480, 81)
DRAFT = draft.describe(ServerConfig())
DECODER = (Parameter("decoder", "choice", "wan", "", choices=("wan", "tae")),)


def complete(*ids: str) -> list[EngineInfo]:
    """These and the draft engine, as if all files were there."""
    infos = {info.id: attrs.evolve(info, available=True, missing=()) for info in wan.describe(ServerConfig())}
    return [*(infos[name] for name in ids), DRAFT]


def test_on_a_large_gpu_the_best_is_taken_as_it_is() -> None:
    chosen = choose(complete("self-forcing-vace", "self-forcing"), 80 * GIB, CLIP)
    assert (chosen.engine, chosen.settings) == ("self-forcing-vace", {})
    assert "of 80 GB" in chosen.reason


def test_on_12_gb_a_model_with_vace_is_not_given_up_for_the_draft_engine() -> None:
    chosen = choose(complete("self-forcing-vace"), 12 * GIB, CLIP)
    assert chosen.engine == "self-forcing-vace"
    assert chosen.settings
    assert "with" in chosen.reason
    assert choose(complete(), 12 * GIB, CLIP).engine == "draft"


def test_what_a_server_says_auto_mostly_is_counts_smaller_windows_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "gpu_memory_bytes", lambda config: 12 * GIB)
    infos = complete("self-forcing-vace")
    assert table.choose(infos, ServerConfig())[0] == "self-forcing-vace"
    assert infos[0].memory_bytes > 12 * GIB, "the control: as it is it would not fit"
    monkeypatch.setattr(table, "gpu_memory_bytes", lambda config: GIB)
    assert "needs the least memory" in table.choose(infos[:1], ServerConfig())[1]


def test_keys_that_are_kept_twice_for_a_near_keyframe_are_in_the_plan() -> None:
    def taken(**settings: int) -> float:
        sixteen = attrs.evolve(CLIP, keyframes=16, settings=settings)
        found = re.search(r"about ([\d.]+) of", choose(complete("self-forcing"), 80 * GIB, sixteen).reason)
        assert found
        return float(found[1])

    keys = 15 * 30 * 1560 * 1536 * 2 / GIB
    assert taken(anchor_reach=3) - taken() == pytest.approx(keys, abs=0.11)
    assert taken(anchor_reach=21) == taken(), "the control: where it is, it is kept once"


def with_tae(name: str) -> EngineInfo:
    """With the small decoder fetched as well."""
    model, _ = complete(name)
    return attrs.evolve(model, parameters=(*model.parameters, *(p for p in DECODER if p not in model.parameters)))


def test_before_a_model_is_given_up_the_small_decoder_is_taken_and_then_a_smaller_size() -> None:
    plain, draft_engine = complete("self-forcing")
    infos = [with_tae("self-forcing"), draft_engine]
    assert choose(infos, 11 * GIB, CLIP).settings["decoder"] == "tae"
    for gigabytes in (8, 6):
        chosen = choose(infos, gigabytes * GIB, CLIP)
        assert chosen.engine == "self-forcing"
        assert chosen.size
        assert 416 * 240 <= chosen.pixels < 832 * 480
        width, height = chosen.size
        assert f"at {width}x{height}, as 832x480 does not fit" in chosen.reason
        settled = choose(infos, gigabytes * GIB, attrs.evolve(CLIP, is_exact=True))
        assert settled.engine == "draft"
        assert f"at 832x480, {width}x{height} would" in settled.reason
    assert choose([plain, draft_engine], 2 * GIB, CLIP).engine == "draft", "less than half of a side is a preview"


def test_the_model_that_makes_the_largest_picture_is_taken_where_none_makes_all_of_it() -> None:
    vace, plain = with_tae("self-forcing-vace"), with_tae("self-forcing")
    chosen = choose([vace, plain, DRAFT], 8 * GIB, CLIP)
    alone = [choose([one, DRAFT], 8 * GIB, CLIP) for one in (vace, plain)]
    assert chosen.engine == "self-forcing"
    assert chosen.pixels == max(one.pixels for one in alone)


def test_a_picture_of_any_size_gets_one_that_the_model_makes() -> None:
    chosen = choose([with_tae("self-forcing"), DRAFT], 8 * GIB, Wanted(1001, 603, 33))
    assert chosen.size
    assert all(side % 16 == 0 for side in chosen.size)


def test_with_its_large_matrices_in_8_bits_a_model_gives_up_less() -> None:
    whole, half = (choose(complete("self-forcing"), 12 * GIB, CLIP, eight_bit=is_half) for is_half in (False, True))
    assert int(half.settings.get("window", 21)) > int(whole.settings.get("window", 21))


def test_a_clip_beyond_81_frames_is_for_a_model_that_rolls_on() -> None:
    long = attrs.evolve(CLIP, num_frames=161)
    chosen = choose(complete("self-forcing", "longlive"), 80 * GIB, long)
    assert chosen.engine == "longlive"
    assert "Self Forcing 1.3B makes clips of 3 to 81 frames" in chosen.reason
    assert choose(complete("self-forcing"), 80 * GIB, long).engine == "draft"


def test_without_a_gpu_the_draft_engine_is_taken_and_says_why() -> None:
    chosen = choose(complete("self-forcing"), 0, CLIP)
    assert chosen.engine == "draft"
    assert "there is no GPU" in chosen.reason


def test_pictures_larger_than_a_model_makes_are_planned_as_large_as_it_makes_them() -> None:
    large = choose(complete("self-forcing"), 24 * GIB, Wanted(3840, 2160, 33))
    assert large.engine == "self-forcing"
    assert choose(complete("self-forcing"), 24 * GIB, Wanted(1280, 720, 33)).reason == large.reason


def test_a_size_that_is_settled_must_be_one_that_the_engine_makes() -> None:
    odd, huge = (Wanted(width, height, 33, is_exact=True) for width, height in ((830, 480), (3840, 2160)))
    assert "multiples of 16" in choose(complete("self-forcing"), 80 * GIB, odd).reason
    chosen = choose(complete("self-forcing"), 80 * GIB, huge)
    assert chosen.engine == "draft"
    assert "at most 921600 pixels" in chosen.reason


def test_what_was_set_by_hand_is_for_an_engine_that_has_it() -> None:
    eased = attrs.evolve(CLIP, settings={"easing": "in"})
    chosen = choose(complete("self-forcing"), 80 * GIB, eased)
    assert (chosen.engine, chosen.reason.split("; ")[1]) == ("draft", "Self Forcing 1.3B has no setting easing")
    assert choose(complete("self-forcing"), 80 * GIB, CLIP).engine == "self-forcing", "the control: nothing was set"
    unknown = attrs.evolve(CLIP, settings={"strategy": "look-behind"})
    assert choose(complete("self-forcing"), 80 * GIB, unknown).engine == "draft"


def test_what_was_set_by_hand_counts_and_is_not_set_otherwise() -> None:
    by_itself = choose(complete("self-forcing"), 12 * GIB, CLIP)
    assert (by_itself.engine, by_itself.settings) == ("self-forcing", {"window": 15, "tiled": True})
    for window in (21, "21"):  # as a client sends it, and as it is typed
        wide = attrs.evolve(CLIP, settings={"window": window}, is_exact=True)
        with pytest.raises(RequestError, match=r"does not fit 12 GB .*; Draft \(RIFE 4\.25\) has no setting window"):
            choose(complete("self-forcing"), 12 * GIB, wide)
    narrow = choose(complete("self-forcing"), 12 * GIB, attrs.evolve(CLIP, settings={"window": 9}))
    assert (narrow.engine, narrow.settings) == ("self-forcing", {})


def test_under_several_prompts_no_clip_is_made_at_once() -> None:
    several = attrs.evolve(CLIP, prompts=2)
    yardstick = next(i.id for i in wan.describe(ServerConfig()) if (p := find(i.id)) and p.strategies == ("joint",))
    assert choose(complete(yardstick), 80 * GIB, CLIP).engine == yardstick, "the control: one prompt"
    at_once = choose(complete(yardstick, "self-forcing"), 80 * GIB, several)
    assert at_once.engine == "self-forcing"
    assert "makes this clip at once, under one prompt" in at_once.reason
    joint = attrs.evolve(several, settings={"strategy": "joint+anchor"})
    with pytest.raises(RequestError, match="makes this clip at once, under one prompt"):
        choose(complete("self-forcing"), 80 * GIB, joint)


def test_a_clip_of_one_block_has_one_prompt() -> None:
    longer, shorter = (attrs.evolve(CLIP, num_frames=frames, prompts=2) for frames in (17, 13))
    assert choose(complete("self-forcing"), 80 * GIB, longer).engine == "self-forcing"
    assert choose(complete("self-forcing"), 80 * GIB, shorter).engine == "draft"
    assert choose(complete("self-forcing"), 80 * GIB, attrs.evolve(shorter, prompts=1)).engine == "self-forcing"


@settings(max_examples=60, deadline=None)
@given(
    memory=st.integers(6, 40).map(lambda gb: gb * GIB),
    num_frames=st.integers(3, 81),
    keyframes=st.integers(1, 16),
    width=st.integers(16, 60).map(lambda n: 16 * n),
    is_exact=st.booleans(),
)
def test_what_is_chosen_fits_and_without_need_nothing_is_given_up(
    memory: int, num_frames: int, keyframes: int, width: int, is_exact: bool
) -> None:
    clip = Wanted(width, 480, num_frames, keyframes, is_exact)
    chosen = choose(complete("self-forcing-vace"), memory, clip)
    preset = find("self-forcing-vace")
    assert preset
    latents, usable = latent_of(num_frames - 1) + 1, int(USABLE * memory)

    def taken(strategy: str, window: int, size: tuple[int, int], tiled: bool = False) -> int:
        return capacity.need_of(preset, strategy, window, latents, keyframes, tiled=tiled).at(*size)

    size = chosen.size or (width, 480)
    usual = taken(preset.strategies[0], preset.window, (width, 480))
    if chosen.engine == "draft":
        assert min(usual, taken("joint", preset.window, size)) > usable
    else:
        strategy = str(chosen.settings.get("strategy", preset.strategies[0]))
        window, tiled = int(chosen.settings.get("window", preset.window)), bool(chosen.settings.get("tiled"))
        assert taken(strategy, window, size, tiled) <= usable
        assert bool(chosen.settings or chosen.size) == (usual > usable)
        assert not (is_exact and chosen.size)


def test_nothing_that_will_do_is_said_with_the_reasons() -> None:
    infos = complete("self-forcing")[:1]
    with pytest.raises(RequestError, match=r"Self Forcing 1\.3B does not fit 2 GB at half of 832x480"):
        choose(infos, 2 * GIB, CLIP)
    with pytest.raises(RequestError, match="no engine is complete"):
        choose([attrs.evolve(info, available=False) for info in infos], 2 * GIB, CLIP)
