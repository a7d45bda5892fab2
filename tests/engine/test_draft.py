"""The draft engine's promises: every frame once and in order, motion and not a dissolve, the same bytes each time."""

import hashlib
import re
import subprocess
import sys
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from attrs import evolve
from safetensors.torch import load_file
from sfwire.errors import ErrorCode, RequestError

from sfserver.config import ServerConfig
from sfserver.engine import draft, flow
from sfserver.engine.base import Chunk, Frame, Job, Keyframe, Step, checked
from sfserver.engine.flow import EASES, HOPELESS, FlowEngine, confidence
from sfserver.engine.picture import between
from sfserver.engine.plan import plan
from sfserver.model import rife
from sfserver.samples import mixed

CPU = torch.device("cpu")
CONFIG = ServerConfig(device="cpu")
WIDTH, HEIGHT = 128, 64
Picture = np.ndarray

PICTURES = load_file(Path(__file__).parent.parent / "model" / "data" / "rife_golden.safetensors")["pictures"].numpy()
A, B = PICTURES
"""A disc that crosses a pattern by 21 pixels."""
CUT = 255 - A[::-1, ::-1] // 2 * 2
"""A picture that no motion makes of A."""


@pytest.fixture(scope="module")
def engine() -> FlowEngine:
    loaded = draft.load(CONFIG)
    assert isinstance(loaded, FlowEngine)
    return loaded


def job(*keyframes: tuple[int, Picture], frames: int = 5, **rest) -> Job:
    held = tuple(Keyframe(at, image) for at, image in keyframes)
    return checked(Job(WIDTH, HEIGHT, frames, held, **rest), draft.describe(CONFIG))


def frames_of(engine: FlowEngine, job: Job) -> list[Frame]:
    return [frame for event in engine.open(job) if isinstance(event, Chunk) for frame in event.frames]


def pictures_of(engine: FlowEngine, job: Job) -> dict[int, bytes]:
    return {frame.index: frame.image.tobytes() for frame in frames_of(engine, job)}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The times for which the engine made a frame."""
    times: list[float] = []

    def noted(net, stage, t, *rest):
        times.append(t)
        return between(net, stage, t, *rest)

    monkeypatch.setattr(flow, "between", noted)
    return times


def with_net(engine: FlowEngine, net, free_bytes: int = 10**10) -> FlowEngine:
    return FlowEngine(net, CPU, engine.info, lambda: free_bytes)


def test_describing_it_takes_neither_torch_nor_numpy():
    blocked = "import sys; sys.modules.update(torch=None, numpy=None); "
    ask = (
        "from sfserver.config import ServerConfig; from sfserver.engine.draft import {}; {}(ServerConfig(device='cpu'))"
    )
    run = [sys.executable, "-c"]
    assert subprocess.run([*run, blocked + ask.format("describe", "describe")], timeout=200).returncode == 0
    loading = subprocess.run([*run, blocked + ask.format("load", "load")], timeout=200, capture_output=True)
    assert b"import of torch halted" in loading.stderr, "the block must block"


def test_every_wanted_position_comes_once_in_order_each_after_a_step(engine):
    events = list(engine.open(job((1, A), (4, B), frames=7)))
    chunks = [i for i, event in enumerate(events) if isinstance(event, Chunk)]
    assert [frame.index for i in chunks for frame in events[i].frames] == [0, 2, 3, 5, 6]
    assert all(isinstance(events[i - 1], Step) for i in chunks)
    steps = [event for event in events if isinstance(event, Step)]
    assert [step.step for step in steps] == sorted(step.step for step in steps)
    assert (steps[-1].step, steps[-1].of) == (5, 5)


def test_before_the_first_and_after_the_last_keyframe_it_holds_and_claims_nothing(engine):
    frames = {frame.index: frame for frame in frames_of(engine, job((1, A), (3, B), frames=6))}
    for at, image in ((0, A), (4, B), (5, B)):
        assert np.array_equal(frames[at].image, image)
        assert frames[at].confidence == 0
    assert frames[2].confidence > 0.5


def test_one_keyframe_alone_is_held(engine):
    made = pictures_of(engine, job((2, A)))
    assert made == dict.fromkeys((0, 1, 3, 4), A.tobytes())


def test_identical_keyframes_come_back_identical_and_cost_no_pass(engine, asked):
    frames = frames_of(engine, job((0, A), (4, A.copy())))
    assert [frame.image.tobytes() for frame in frames] == [A.tobytes()] * 3
    assert {frame.confidence for frame in frames} == {1.0}
    assert asked == []


def test_nearly_identical_keyframes_come_back_nearly_identical(engine):
    b = A.copy()
    b[0, 0] ^= 1
    for frame in frames_of(engine, job((0, A), (4, b))):
        square_error = np.square(frame.image.astype(float) - A).mean()
        assert 10 * np.log10(255**2 / max(square_error, 1e-9)) > 50
        assert frame.confidence > 0.99


def centre_of_red_px(picture: Picture) -> tuple[float, float]:
    """x and y of the disc: the pattern behind it has nothing so red."""
    red, green, blue = np.moveaxis(picture.astype(float), -1, 0)
    weight = (red - green - blue).clip(min=0)
    y, x = np.indices(weight.shape)
    return (weight * x).sum() / weight.sum(), (weight * y).sum() / weight.sum()


def test_it_moves_and_does_not_dissolve(engine):
    start, end = (np.array(centre_of_red_px(image)) for image in (A, B))
    left_behind = np.s_[34:40, 30:36]  # inside the disc of A, outside of it from a quarter of the way on
    for frame in frames_of(engine, job((0, A), (4, B)))[1:]:
        share = frame.index / 4
        assert centre_of_red_px(frame.image) == pytest.approx(start + share * (end - start), abs=1.5)
        assert np.abs(frame.image[left_behind] - B[left_behind].astype(float)).mean() < 10
    ghost = mixed(A, B, 0.5)
    assert np.abs(ghost[left_behind] - B[left_behind].astype(float)).mean() > 20


def test_a_cut_is_dissolved_and_not_trusted(engine):
    for frame in frames_of(engine, job((0, A), (4, CUT))):
        assert np.array_equal(frame.image, mixed(A, CUT, frame.index / 4))
        assert frame.confidence < 0.5
    for frame in frames_of(engine, job((0, A), (4, B))):
        assert not np.array_equal(frame.image, mixed(A, B, frame.index / 4))
        assert frame.confidence > 0.5


def test_a_dissolve_ends_at_its_pictures():
    assert np.array_equal(mixed(A, CUT, 0), A)
    assert np.array_equal(mixed(A, CUT, 1), CUT)


def test_confidence_falls_with_disagreement():
    values = [confidence(d) for d in (0, 0.01, 0.1, HOPELESS, 0.5, 1)]
    assert values == sorted(values, reverse=True)
    assert values[0] == 1
    assert values[3] == 0.5
    assert len(set(values)) == 6
    assert all(0 <= value <= 1 for value in values)


@pytest.mark.parametrize(
    ("easing", "times"),
    [
        ("linear", [0.25, 0.5, 0.75]),
        ("in", [0.0625, 0.25, 0.5625]),
        ("out", [0.4375, 0.75, 0.9375]),
        ("in-out", [0.15625, 0.5, 0.84375]),
    ],
)
def test_easing_spaces_the_frames(engine, asked, easing, times):
    frames_of(engine, job((0, A), (4, B), params={"easing": easing}))
    assert asked == times


def test_every_declared_easing_starts_at_one_keyframe_and_ends_at_the_next():
    assert tuple(EASES) == draft.EASINGS
    assert all((ease(0), ease(1)) == (0, 1) for ease in EASES.values())


def test_same_job_same_bytes_wherever_it_is_resumed(engine, asked):
    whole = pictures_of(engine, job((0, A), (3, B), (6, A), frames=7))
    assert pictures_of(engine, job((0, A), (3, B), (6, A), frames=7)) == whole
    for start in range(8):
        asked.clear()
        rest = pictures_of(engine, job((0, A), (3, B), (6, A), frames=7, resume_from=start))
        assert rest == {at: image for at, image in whole.items() if at >= start}
        assert len(asked) == len(rest), "frames before it are not made"


def test_several_keyframes_work_pairwise(engine):
    both = pictures_of(engine, job((0, A), (3, B), (6, CUT), frames=7))
    first, second = (
        pictures_of(engine, job((0, A), (3, B), frames=4)),
        pictures_of(engine, job((0, B), (3, CUT), frames=4)),
    )
    assert both == first | {at + 3: image for at, image in second.items()}


def test_prompt_and_seed_change_nothing_and_it_says_so(engine):
    plain = pictures_of(engine, job((0, A), (4, B)))
    assert pictures_of(engine, job((0, A), (4, B), prompt="a red ball", negative_prompt="blur", seed=7)) == plain
    assert not engine.info.uses_prompt
    assert not engine.info.uses_negative_prompt
    assert "ignores the prompt" in engine.info.summary


def test_these_are_the_pixels_of_this_version(engine):
    """Where this fails pixels have changed: raise VERSION, look at the frames, and store them under the new name."""
    stored = load_file(Path(__file__).parent / "data" / "draft_frames.safetensors")[draft.VERSION].numpy()
    made = np.stack([frame.image for frame in frames_of(engine, job((0, A), (4, B)))])
    assert np.abs(made.astype(int) - stored).max() <= 1, "other processors may round the other way, not more"


def test_closing_it_frees_the_pair(engine, monkeypatch):
    pairs = []

    def watched(net, pair):
        pairs.append(weakref.ref(pair))
        return plan(net, pair)

    monkeypatch.setattr(flow, "plan", watched)
    events = engine.open(job((0, A), (4, B)))
    next(events)
    assert pairs[0]() is not None
    events.close()
    assert pairs[0]() is None


def test_values_that_are_not_numbers_are_reported(engine):
    broken = rife.load(draft.WEIGHTS, CPU)
    broken.block4.last.bias.fill_(torch.nan)
    with pytest.raises(RequestError, match="not numbers") as caught:
        frames_of(with_net(engine, broken), job((0, A), (4, B)))
    assert caught.value.code == ErrorCode.NOT_FINITE


def test_too_little_memory_is_said_before_it_is_used_with_a_size_that_fits(engine, asked):
    tight = with_net(engine, engine._net, free_bytes=190_000_000)
    large = np.tile(A, (3, 2, 1))  # 256x192, padded to the same
    wanted = Job(256, 192, 3, (Keyframe(0, large), Keyframe(2, np.roll(large, 4, 1))))
    with pytest.raises(RequestError, match=r"256x192 take about 200 MB .* 190 MB are free") as caught:
        frames_of(tight, checked(wanted, engine.info))
    assert caught.value.code == ErrorCode.OUT_OF_MEMORY
    assert asked == []

    offered = re.search(r"(\d+)x(\d+) would fit", caught.value.message)
    assert offered
    width, height = map(int, offered.groups())
    keyframes = tuple(Keyframe(k.at, k.image[:height, :width]) for k in wanted.keyframes)
    fitting = evolve(wanted, width=width, height=height, keyframes=keyframes)
    assert len(frames_of(tight, checked(fitting, engine.info))) == 1
    assert asked == [0.5]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), ErrorCode.OUT_OF_MEMORY),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), ErrorCode.OUT_OF_MEMORY),
        (RuntimeError("shapes do not match"), None),
    ],
)
def test_memory_that_runs_out_is_told_from_our_own_mistakes(engine, monkeypatch, error, code):
    def failing(*_args, **_how):
        raise error

    monkeypatch.setattr(flow, "between", failing)
    with pytest.raises(RequestError if code else RuntimeError) as caught:
        frames_of(engine, job((0, A), (4, B)))
    assert (caught.value.code if isinstance(caught.value, RequestError) else None) == code


@pytest.mark.parametrize("change", ["missing", "cut off", "one bit"])
def test_weights_that_are_not_ours_are_refused_by_name(tmp_path, monkeypatch, change):
    path = tmp_path / "flownet.safetensors"
    data = bytearray(draft.WEIGHTS.read_bytes())
    if change == "cut off":
        path.write_bytes(data[:-1])
    elif change == "one bit":
        data[-1] ^= 1
        path.write_bytes(data)
    monkeypatch.setattr(draft, "WEIGHTS", path)
    with pytest.raises(RequestError, match=r"flownet\.safetensors.*install sfserver again") as caught:
        draft.load(CONFIG)
    assert caught.value.code == ErrorCode.ENGINE_UNAVAILABLE
    assert draft.describe(CONFIG).available == (change != "missing"), "describing must stay cheap"


def test_the_weights_are_those_whose_making_is_written_down():
    sha256 = hashlib.sha256(draft.WEIGHTS.read_bytes()).hexdigest()
    assert sha256 == draft.WEIGHTS_SHA256
    assert sha256 in draft.WEIGHTS.with_name("README.md").read_text("utf-8")
    assert "Copyright (c) 2021 hzwer" in draft.WEIGHTS.with_name("LICENSE").read_text("utf-8")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there_is_said():
    with pytest.raises(RequestError, match="device cuda: torch finds none") as caught:
        draft.load(ServerConfig(device="cuda"))
    assert caught.value.code == ErrorCode.ENGINE_UNAVAILABLE
