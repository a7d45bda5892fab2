"""The engine as the server sees it: a job goes in, steps and frames come out. Toy networks, every layer real."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import attrs
import numpy as np
import pytest
import torch
import toy
from hypothesis import given, settings
from hypothesis import strategies as st
from sfwire.errors import ErrorCode, RequestError

from sfserver.engine import wan_engine
from sfserver.engine.base import Chunk, Event, Job, Keyframe, Step, checked
from sfserver.engine.conditioning import to_pixels
from sfserver.engine.geometry import plan
from sfserver.engine.guide import Guide
from sfserver.engine.noise import make_schedule, seeded_noise
from sfserver.engine.pipeline import to_pictures
from sfserver.engine.presets import CAUSAL_FORCING_2STEP, WAN_VACE
from sfserver.engine.rollout import Made, Memory, Networks, Prompt, Rollout, Sampling
from sfserver.engine.seam import low_frequencies
from sfserver.model.config import TOY, TOY_VACE

STRATEGIES = toy.PRESET.strategies
QUICK = {"strategy": "anchor", "seam": False}


@settings(max_examples=6, deadline=None)
@given(
    num_frames=st.integers(3, 20),
    places=st.sets(st.integers(0, 29), min_size=1, max_size=4),
    strategy=st.sampled_from(STRATEGIES),
    resume=st.integers(0, 30),
)
def test_every_frame_without_a_keyframe_arrives_once_and_in_order(
    num_frames: int, places: set[int], strategy: str, resume: int
) -> None:
    at = tuple(sorted({place % num_frames for place in places}))
    job = toy.job(num_frames, at, params={"strategy": strategy}, resume_from=min(resume, num_frames))
    frames = toy.frames(toy.run(job))
    assert [frame.index for frame in frames] == job.wanted()
    assert all(frame.image.shape == (toy.HEIGHT, toy.WIDTH, 3) and frame.image.dtype == np.uint8 for frame in frames)


def test_first_frames_leave_before_the_last_block_is_begun() -> None:
    events = toy.run(toy.job(params=QUICK))
    first_chunk = next(i for i, event in enumerate(events) if isinstance(event, Chunk))
    assert sum(isinstance(event, Step) and event.stage == "denoising" for event in events[first_chunk:]) >= 2


@pytest.mark.parametrize(("strategy", "steps"), [("chunk+anchor", 2 + 2), ("chunk", 2 + 3), ("lookahead", 2 + 7)])
def test_first_frames_wait_for_no_more_of_the_vace_context_than_their_block_sees(strategy: str, steps: int) -> None:
    """Two stills; then the two passes that place them, or latents of the context. Grey is kept from the clip before."""
    engine, job = toy.engine(), toy.job(25, (0, 24), params={"strategy": strategy})
    toy.run(job, engine)
    events = toy.run(job, engine)
    first_chunk = next(i for i, event in enumerate(events) if isinstance(event, Chunk))
    of_keyframes = [isinstance(event, Step) and event.stage == "keyframes" for event in events]
    assert sum(of_keyframes[:first_chunk]) == steps
    assert sum(of_keyframes) >= 2 + 7, "the end's block sees its context all the same"


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_same_job_same_bytes(strategy: str) -> None:
    job = toy.job(9, (0, 8), params={"strategy": strategy})
    first, second = (toy.pixels(toy.run(job)) for _ in range(2))
    assert np.array_equal(first, second)
    assert not np.array_equal(first, toy.pixels(toy.run(attrs.evolve(job, seed=1))))


def test_resumed_frames_are_those_of_the_whole_run() -> None:
    job = toy.job(params=QUICK)
    whole = {frame.index: frame.image for frame in toy.frames(toy.run(job))}
    for frame in toy.frames(toy.run(attrs.evolve(job, resume_from=11))):
        assert np.array_equal(frame.image, whole[frame.index])


@pytest.mark.parametrize(("strategy", "steers"), [("anchor", True), ("lookahead", True), ("chunk", False)])
def test_end_keyframe_steers_the_first_frames_unless_told_by_chunk(strategy: str, steers: bool) -> None:
    def first_frames(end: int) -> Any:
        keyframes = (Keyframe(0, toy.picture(0)), Keyframe(24, toy.picture(end)))
        job = toy.job(keyframes=keyframes, params={"strategy": strategy, "seam": False})
        return toy.pixels(toy.run(job))[:8]

    assert np.array_equal(first_frames(1), first_frames(2)) is not steers


def test_anchor_with_no_keyframe_but_the_first_is_the_plain_rollout_from_it() -> None:
    job = toy.job(25, (0,), params=QUICK)
    loaded, first = toy.weights(), to_pixels(job.keyframes[0].image, toy.CPU)
    geometry = plan(toy.WIDTH, toy.HEIGHT, 25, toy.PRESET.per_block, given=[1])
    rollout = Rollout(
        Networks(loaded.dit),
        geometry,
        Sampling(make_schedule(toy.PRESET.steps, toy.PRESET.shift)),
        [Prompt(loaded.dit.embed_prompt(loaded.embed(job.prompt)))],
        seeded_noise(job.seed, geometry),
        Guide(known={0: loaded.vae.encode(first)}),
        Memory(window=geometry.latents),
    )
    latents = torch.cat([event.latents for event in rollout.run() if isinstance(event, Made)], dim=1)
    plain = to_pictures(loaded.vae.decode(latents, loaded.vae.new_decoder_state())[0, 1:25])
    assert np.abs(toy.pixels(toy.run(job)).astype(int) - plain.numpy()).max() <= 1


@pytest.mark.parametrize("strategy", ["anchor", "lookahead"])
def test_seam_takes_out_what_the_decoder_did_to_the_keyframes_and_nothing_else(strategy: str) -> None:
    """With an anchored first frame the rollout's own decoding of it is what counts: no other is made of it."""
    job = toy.job(25, (0, 24), params={"strategy": strategy, "seam": True})
    plain = toy.pixels(toy.run(attrs.evolve(job, params={"strategy": strategy, "seam": False}))).astype(float)
    vae, (start, end) = toy.weights().vae, (to_pixels(k.image, toy.CPU) for k in job.keyframes)
    ended = vae.decode(vae.encode(torch.cat([end] * 5, dim=1)), vae.new_decoder_state())
    started = vae.decode(vae.encode(start), vae.new_decoder_state())
    corrections = [low_frequencies((picture - seen)[0, -1]) for picture, seen in ((start, started), (end, ended))]
    shift = torch.stack([torch.lerp(*corrections, frame / 24) for frame in range(1, 24)]).movedim(1, -1).numpy()
    assert np.abs(shift).max() * 127.5 > 10, "a toy VAE shifts colours a lot"
    wanted = (plain + shift * 127.5).clip(0, 255)
    unclipped = (plain > 0) & (plain < 255)
    assert np.abs(toy.pixels(toy.run(job)) - wanted)[unclipped].max() <= 1.01


def test_vace_of_strength_0_leaves_the_anchors_alone() -> None:
    anchored, silenced = (
        toy.pixels(toy.run(toy.job(13, (0, 12), params={"strategy": strategy, "vace_strength": 0.0})))
        for strategy in ("anchor", "lookahead+anchor")
    )
    assert np.array_equal(anchored, silenced)


def test_negative_prompt_steers_and_an_empty_one_costs_nothing() -> None:
    plain = toy.run(toy.job(13, (0, 12), params=QUICK))
    guided = toy.run(toy.job(13, (0, 12), params=QUICK, negative_prompt="a dog"))
    assert not np.array_equal(toy.pixels(plain), toy.pixels(guided))
    prompts = toy.engine()._prompts(checked(toy.job(), toy.engine().info), "a cat")
    assert [layer.negative for layer in prompts[0].text] == [None] * TOY.layers


def test_a_model_with_a_negative_prompt_of_its_own_takes_it_where_none_is_given_and_shows_it() -> None:
    preset = attrs.evolve(WAN_VACE, dit=TOY_VACE, even_steps=2)
    engine = toy.engine(preset)
    own, given, other = (
        toy.pixels(toy.run(toy.job(9, (0, 8), negative_prompt=text), engine))
        for text in ("", preset.negative_prompt, "blurred")
    )
    assert np.array_equal(own, given)
    assert not np.array_equal(own, other)
    assert preset.negative_prompt in engine.info.summary


def test_a_model_that_needs_two_passes_runs_them() -> None:
    preset = attrs.evolve(WAN_VACE, dit=TOY_VACE, even_steps=2)
    engine = toy.engine(preset)
    passes = 0

    def count(*_: object) -> None:
        nonlocal passes
        passes += 1

    hook = toy.weights().dit.register_forward_hook(count)
    frames = toy.frames(toy.run(toy.job(13, (0, 12)), engine))
    hook.remove()
    assert passes == 4
    assert len(frames) == 11


def test_a_preset_without_vace_and_with_blocks_of_one() -> None:
    preset = attrs.evolve(CAUSAL_FORCING_2STEP, dit=TOY)
    engine = toy.engine(preset)
    assert "vace_strength" not in {p.name for p in engine.info.parameters}
    events = toy.run(toy.job(13, (0, 12)), engine)
    assert [len(event.frames) for event in events if isinstance(event, Chunk)] == [4, 4, 3]


def test_small_decoder_makes_other_pixels_of_the_same_clip() -> None:
    engine = toy.engine(has_tae=True)
    job = toy.job(13, (0, 12), params={**QUICK, "decoder": "tae"})
    small, own = (toy.pixels(toy.run(j, engine)) for j in (job, attrs.evolve(job, params=QUICK)))
    assert small.shape == own.shape
    assert not np.array_equal(small, own)


def test_closing_stops_within_a_pass() -> None:
    passes = 0

    def count(*_: object) -> None:
        nonlocal passes
        passes += 1

    engine = toy.engine()
    hook = toy.weights().dit.register_forward_hook(count)
    run = engine.open(checked(toy.job(params=QUICK), engine.info))
    while next(run) != Step("denoising", 4, 7):
        pass
    assert passes == 4
    run.close()
    hook.remove()
    assert passes == 4


class Broken(torch.nn.Module):
    """Stands for a transformer that cannot go on."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error
        self.config = TOY_VACE
        self.compute_dtype = torch.float32

    def embed_prompt(self, *_: object) -> list[Any]:
        return []

    def embed_text(self, embeds: torch.Tensor) -> torch.Tensor:
        return toy.weights().dit.embed_text(embeds)

    def forward(self, *_: object, **__: object) -> torch.Tensor:
        raise self.error


def broken(error: Exception) -> wan_engine.WanEngine:
    return toy.engine(loaded=attrs.evolve(toy.weights(), dit=Broken(error)))  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    ],
)
def test_out_of_memory_names_a_size_that_fits(error: Exception) -> None:
    with pytest.raises(RequestError, match=r"48x32 needs about .* GB besides the .*; 32x16 should fit") as caught:
        toy.run(toy.job(params=QUICK), broken(error))
    assert caught.value.code is ErrorCode.OUT_OF_MEMORY
    assert caught.value.__context__ is None, "the cause would keep the failed pass's tensors alive"


@pytest.mark.parametrize(
    "sentence",
    [
        "mat1 and mat2 shapes cannot be multiplied",
        "CUDA error: an illegal memory access was encountered",
        "expected all tensors to have the same memory format",
    ],
)
def test_other_errors_are_not_called_out_of_memory(sentence: str) -> None:
    with pytest.raises(RuntimeError, match=sentence):
        toy.run(toy.job(params=QUICK), broken(RuntimeError(sentence)))


def test_a_clip_too_large_for_the_cache_is_refused_before_any_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wan_engine, "free_bytes", lambda device: 100_000)
    with pytest.raises(RequestError, match="not even a small size fits") as caught:
        toy.run(toy.job(params=QUICK), broken(AssertionError("a pass was made")))
    assert caught.value.code is ErrorCode.OUT_OF_MEMORY


def test_nan_is_reported_and_the_engine_lives_on() -> None:
    bad, job = toy.engine(loaded=with_nan()), toy.job(13, (0, 12), params=QUICK)
    with pytest.raises(RequestError) as caught:
        toy.run(job, bad)
    assert caught.value.code is ErrorCode.NOT_FINITE
    bad._weights.dit.head.head.bias.data.zero_()
    assert toy.frames(toy.run(job, bad))


@pytest.mark.parametrize("decoder", ["wan", "tae"])
@pytest.mark.parametrize("seam", [True, False])
def test_nan_in_a_decoder_is_reported_and_not_delivered_as_black(decoder: str, seam: bool) -> None:
    loaded = toy.fresh_weights()
    network = loaded.tae if decoder == "tae" else loaded.vae
    assert network
    weight = next(iter(network.decoder.parameters()))
    weight.data[(0,) * weight.ndim] = float("nan")
    job = toy.job(13, (0, 12), params={"strategy": "anchor", "seam": seam, "decoder": decoder})
    with pytest.raises(RequestError, match="the VAE's decoder produced NaN") as caught:
        toy.run(job, toy.engine(loaded=loaded, has_tae=True))
    assert caught.value.code is ErrorCode.NOT_FINITE


def with_nan() -> wan_engine.Weights:
    loaded = toy.fresh_weights()
    loaded.dit.head.head.bias.data[0] = float("nan")
    return loaded


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"num_frames": 2}, "makes clips of 3 to 81"),
        ({"num_frames": 482}, "makes clips of 3 to 81"),
        ({"width": 56}, "needs a multiple of 16, try 64"),
        ({"height": 40}, "needs a multiple of 16, try 32"),
        ({"keyframes": (Keyframe(3, toy.picture(0)),)}, "keyframe at 3 is outside the clip of 3 frames"),
        ({"keyframes": (Keyframe(-1, toy.picture(0)),)}, "keyframe at -1 is outside the clip of 3 frames"),
        ({"params": {"window": 3}}, "window is 3; it must lie between 4 and 42"),
        ({"params": {"strategy": "magic"}}, "choose one of chunk"),
    ],
)
def test_bad_values_are_refused_with_a_remedy(change: dict[str, Any], sentence: str) -> None:
    job = attrs.evolve(toy.job(3, (0,)), **change)
    with pytest.raises(RequestError, match=sentence) as caught:
        checked(job, toy.engine().info)
    assert caught.value.code is ErrorCode.BAD_VALUE


def test_compiled_stages_make_the_same_clip(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wan_engine.How, "compiled", _compiled_for_tests)
    job = toy.job(13, (0, 12), params=QUICK)
    plain, compiled = (toy.pixels(toy.run(attrs.evolve(job, params={**QUICK, "compile": c}))) for c in (False, True))
    assert np.abs(plain.astype(int) - compiled).max() <= 1


@pytest.mark.parametrize("strategy", ["anchor", "chunk+anchor", "lookahead+anchor"])
def test_after_the_first_clips_nothing_is_compiled_again_and_nothing_runs_uncompiled(
    strategy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wan_engine.How, "compiled", _compiled_for_tests)
    torch._dynamo.reset()
    counters = torch._dynamo.utils.counters
    counters.clear()
    engine, graphs = toy.engine(), []
    clips = [
        (9, "", 11.0),
        (13, "", 11.0),
        (9, "a dog", 11.0),
        (13, "a cat", 5.0),
        (49, "a dog", 7.0),
        (45, "a dog", 9.0),
        (33, "", 3.0),
    ]
    for num_frames, negative, strength in clips:
        params = {"strategy": strategy, "compile": True, "seam": False, "negative_strength": strength}
        toy.run(toy.job(num_frames, (0, num_frames - 1), params=params, negative_prompt=negative), engine)
        graphs.append(counters["stats"]["unique_graphs"])
    assert graphs[3] <= 18, "two stages, few shapes: one, two and three latents, with a negative prompt and without"
    assert graphs[3:] == graphs[3:4] * 4
    assert counters["frames"]["ok"] == counters["frames"]["total"]
    torch._dynamo.reset()


def test_more_sizes_than_torch_allows_by_default_are_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wan_engine.How, "compiled", _compiled_for_tests)
    torch._dynamo.reset()
    counters = torch._dynamo.utils.counters
    counters.clear()
    engine = toy.engine()
    sizes = [(16 * i, 32) for i in range(1, 7)]
    for width, height in sizes:
        keyframes = (Keyframe(0, toy.picture(0, width, height)),)
        params = {"strategy": "anchor", "compile": True, "seam": False}
        toy.run(Job(width, height, 5, keyframes, "x", params=params), engine)
    assert counters["stats"]["unique_graphs"] >= 2 * len(sizes)
    assert counters["frames"]["ok"] == counters["frames"]["total"]
    torch._dynamo.reset()


_compile = wan_engine.How.compiled


def _compiled_for_tests(attend: Any) -> wan_engine.How:
    """Traced like any compilation, without a C++ compiler behind it."""
    return _compile(attend, backend="eager")


def test_info_tells_what_a_client_must_know() -> None:
    info = toy.engine().info
    assert (info.size_multiple, info.min_frames, info.max_frames, info.can_skip) == (16, 3, 81, False)
    assert info.uses_prompt
    assert info.uses_negative_prompt


def test_events_can_be_thrown_away_unread() -> None:
    run: Generator[Event, None, None] = toy.engine().open(checked(toy.job(params=QUICK), toy.engine().info))
    run.close()


def test_job_is_not_changed() -> None:
    job = toy.job(13, (0, 12), params=QUICK)
    before = [keyframe.image.copy() for keyframe in job.keyframes]
    toy.run(job)
    assert isinstance(job, Job)
    assert all(np.array_equal(a, k.image) for a, k in zip(before, job.keyframes, strict=True))
