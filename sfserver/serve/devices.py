"""Which worker has which device: what is typed, what is there, and what a process is told before it starts.

CUDA looks at its variable once, when it is initialised, and OpenMP when torch is imported: so a worker is pinned by the
environment of its process, and by nothing later. What GPUs there are is asked of torch in a process of its own, because
neither supervisor nor front ever imports it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence

from attrs import evolve, frozen

from ..config import AUTO, ConfigError, ServerConfig

VISIBLE = "CUDA_VISIBLE_DEVICES"
_ASK_TIMEOUT_S = 120.0
_ASK = (
    "import json, torch\nprint(json.dumps([torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]))\n"
)


@frozen
class Device:
    """What one worker has. `gpu` counts within what this process sees; None is the processor, or not pinned."""

    name: str
    """As people are told it: `GPU 1 (NVIDIA H100)`, `cpu, 4 threads`."""
    gpu: int | None = None
    threads: int = 0
    """Of the processor; 0 leaves that to torch."""
    is_pinned: bool = True

    def environment(self, ours: Mapping[str, str]) -> dict[str, str]:
        """Of the worker's process. What the user has set for OpenMP stays.

        Waiting threads that spin (OpenMP's default) take the cores from everybody else: on a busy machine a draft frame
        took 4.5 s with them and 0.55 s without.
        """
        threads = {"OMP_NUM_THREADS": str(self.threads)} if self.threads else {}
        whole = {"OMP_WAIT_POLICY": "PASSIVE", **threads, **ours}
        if self.is_pinned:
            visible = [word.strip() for word in ours.get(VISIBLE, "").split(",") if word.strip()]
            gpu = "" if self.gpu is None else visible[self.gpu] if self.gpu < len(visible) else str(self.gpu)
            whole[VISIBLE] = gpu
        return whole

    def settled(self, config: ServerConfig) -> ServerConfig:
        """The worker's own settings."""
        return evolve(config, device="cpu") if self.is_pinned and self.gpu is None else config


def unpinned(workers: int) -> tuple[Device, ...]:
    """As many that share whatever there is."""
    return (Device("the first device", threads=_share(workers), is_pinned=False),) * workers


def choose(config: ServerConfig, gpus: Callable[[], Sequence[str]] | None = None) -> tuple[Device, ...]:
    """A device for each worker that the settings ask for. `gpus` says their names, and is asked only if it matters.

    Raises ConfigError for a device that is not there.
    """
    if config.workers == 0:
        return ()
    if not config.devices and config.workers == 1:
        return unpinned(1)
    found = [] if config.devices == "cpu" or config.device == "cpu" else list((gpus or ask_for_gpus)())
    wanted = _wanted(config, found)
    count = max(1, len(wanted)) if config.workers == AUTO else config.workers
    threads = _share(count)
    if not wanted:
        return (Device(f"cpu, {_named(threads or _cores(), 'thread')}", threads=threads),) * count
    rows = [wanted[i % len(wanted)] for i in range(count)]
    return tuple(Device(f"GPU {gpu} ({found[gpu]})", gpu, threads) for gpu in rows)


def _wanted(config: ServerConfig, found: Sequence[str]) -> list[int]:
    if config.devices in ("", "all", "cpu"):
        if config.device == "cuda" and not found:
            raise ConfigError("--device cuda: torch finds no GPU here; set it to auto, or install torch with CUDA")
        return list(range(len(found)))
    wanted = [int(word) for word in config.devices.split(",")]
    for gpu in wanted:
        if gpu >= len(found):
            there = ", ".join(f"{i} ({name})" for i, name in enumerate(found)) or "none; --devices cpu needs none"
            raise ConfigError(f"--devices {config.devices}: there is no GPU {gpu} here; there are: {there}")
    return wanted


def ask_for_gpus() -> list[str]:
    """The names of the GPUs that torch sees, in its order. Raises ConfigError where it cannot be asked."""
    try:
        asked = subprocess.run([sys.executable, "-c", _ASK], capture_output=True, text=True, timeout=_ASK_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        raise ConfigError(f"--devices: torch did not say in {_ASK_TIMEOUT_S:.0f} s what GPUs there are") from None
    if asked.returncode:
        last = (asked.stderr.strip().splitlines() or ["no word"])[-1]
        raise ConfigError(f"--devices: torch cannot say what GPUs there are ({last[:200]}); see: sfserver doctor")
    return json.loads(asked.stdout.strip().splitlines()[-1])


def _cores() -> int:
    return os.cpu_count() or 1


def _share(workers: int) -> int:
    """Threads of each of several workers."""
    return max(1, _cores() // workers) if workers > 1 else 0


def _named(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
