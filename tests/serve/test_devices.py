"""One worker a device, pinned by the environment of its process before anything looks for a device."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from attrs import evolve

from sfserver.config import ConfigError, ServerConfig, load_config
from sfserver.serve import devices
from sfserver.serve.devices import choose, unpinned

TWO = ["NVIDIA One", "NVIDIA Two"]


def config(**flags: object) -> ServerConfig:
    return load_config(flags, environment={})


def gpus(*names: str):
    return lambda: names


def test_auto_is_one_worker_a_device() -> None:
    chosen = choose(config(workers="auto"), gpus(*TWO))
    assert [device.gpu for device in chosen] == [0, 1]
    assert [device.name for device in chosen] == ["GPU 0 (NVIDIA One)", "GPU 1 (NVIDIA Two)"]


def test_several_workers_take_the_devices_in_turns() -> None:
    assert [d.gpu for d in choose(config(workers=3), gpus(*TWO))] == [0, 1, 0]
    assert [d.gpu for d in choose(config(workers="auto", devices="1"), gpus(*TWO))] == [1]


def test_a_single_worker_without_a_word_about_devices_is_left_alone_and_nobody_is_asked() -> None:
    def asked() -> list[str]:
        raise AssertionError("torch was asked")

    assert choose(config(), asked) == unpinned(1)
    environment = unpinned(1)[0].environment({devices.VISIBLE: "3"})
    assert environment[devices.VISIBLE] == "3"
    assert [d.gpu for d in choose(config(devices="cpu", workers=2), asked)] == [None, None]


def test_workers_of_the_processor_share_its_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 16)
    chosen = choose(config(workers=3), gpus())
    assert {device.environment({})["OMP_NUM_THREADS"] for device in chosen} == {"5"}
    assert {device.settled(config()).device for device in chosen} == {"cpu"}
    assert chosen[0].environment({"OMP_NUM_THREADS": "2"})["OMP_NUM_THREADS"] == "2"


def test_a_pinned_worker_counts_within_what_the_user_lets_us_see() -> None:
    second = choose(config(devices="1", workers="auto"), gpus(*TWO))[0]
    assert second.environment({devices.VISIBLE: "4,7"})[devices.VISIBLE] == "7"
    assert second.environment({})[devices.VISIBLE] == "1"
    assert choose(config(devices="cpu"), gpus())[0].environment({})[devices.VISIBLE] == ""


def test_a_process_is_pinned_before_it_starts() -> None:
    second = choose(config(devices="1", workers="auto"), gpus(*TWO))[0]
    code = f"import os; print(os.environ[{devices.VISIBLE!r}])"
    seen = subprocess.run(
        [sys.executable, "-c", code], env=second.environment(os.environ), capture_output=True, text=True, timeout=120
    )
    assert seen.stdout.strip() == second.environment(os.environ)[devices.VISIBLE] != ""


@pytest.mark.parametrize(
    ("flags", "names", "sentence"),
    [
        ({"devices": "0,3", "workers": "auto"}, TWO, r"there is no GPU 3 here; there are: 0 \(NVIDIA One\)"),
        ({"devices": "0"}, [], r"there is no GPU 0 here; there are: none; --devices cpu needs none"),
        ({"device": "cuda", "workers": "auto"}, [], "torch finds no GPU here"),
    ],
)
def test_a_device_that_is_not_there_is_one_sentence(flags: dict[str, str], names: list[str], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        choose(config(**flags), gpus(*names))


@pytest.mark.parametrize(
    "flags",
    [{"devices": "gpu0"}, {"devices": "0,,1"}, {"workers": "many"}, {"workers_from": "5600"}, {"workers": "65"}],
)
def test_what_is_no_device_or_address_is_refused_by_its_name(flags: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=f"--{next(iter(flags)).replace('_', '-')}"):
        config(**flags)


def test_the_settings_of_a_pinned_worker_are_its_own() -> None:
    given = evolve(config(), device="auto")
    assert choose(config(devices="cpu"), gpus())[0].settled(given).device == "cpu"
    assert unpinned(1)[0].settled(given).device == "auto"
