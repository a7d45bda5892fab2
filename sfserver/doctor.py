"""`sfserver doctor`: is everything here that the server and the command line need? One finding a line."""

from __future__ import annotations

import json
import os
import platform
import socket
import sys
import tempfile
from collections.abc import Callable, Iterable
from fractions import Fraction
from pathlib import Path

import attrs
import numpy as np
import psutil
from attrs import frozen
from sfwire import connection as connections
from sfwire.client import Client
from sfwire.errors import NoConnectionFile, RequestError, ServerUnavailable

from . import __version__
from .config import ServerConfig
from .engine import table
from .errors import UserError
from .media import ClipWriter, h264_encoder

ANSWER_TIMEOUT_S = 5.0
"""A server that was started long ago answers within milliseconds."""
LEAST_MEMORY_BYTES = 10**9
"""Twice what the command line with the draft engine was measured to take at 832x480."""


@frozen
class Finding:
    """What was looked at, what was found, and what to do; an empty `remedy` means that it is well."""

    check: str
    found: str
    remedy: str = ""


def examine(config: ServerConfig) -> list[Finding]:
    """Every check, in the order in which a fresh machine fails them. Changes nothing that stays."""
    checks: tuple[Callable[[ServerConfig], Iterable[Finding]], ...] = (
        _python,
        _torch,
        _memory,
        _port,
        _folders,
        _server,
        _video,
        _engines,
    )
    return [finding for check in checks for finding in check(config)]


def as_lines(findings: Iterable[Finding]) -> str:
    return "\n".join(
        f"{'ok  ' if not f.remedy else 'FIX '} {f.check:<18} {f.found}" + (f"; {f.remedy}" if f.remedy else "")
        for f in findings
    )


def as_json(findings: Iterable[Finding]) -> str:
    return json.dumps([{**attrs.asdict(f), "ok": not f.remedy} for f in findings], indent=2)


def _python(_config: ServerConfig) -> Iterable[Finding]:
    found = f"sfserver {__version__} in Python {platform.python_version()} on {platform.system()} {platform.machine()}"
    yield Finding("python", found, "" if sys.version_info >= (3, 11) else "install Python 3.11 or newer")


def _torch(config: ServerConfig) -> Iterable[Finding]:
    try:
        import torch
    except (ImportError, OSError) as error:  # OSError: a shared library of it does not load
        yield Finding("torch", f"cannot be imported ({error})", "install it anew: pip install --force-reinstall torch")
        return
    has_mps = torch.backends.mps.is_available()
    if torch.cuda.is_available():
        free, total = torch.cuda.mem_get_info()
        device = f"cuda, {torch.cuda.get_device_name()}, {free / 1e9:.1f} of {total / 1e9:.1f} GB free"
    else:
        device = "mps" if has_mps else f"cpu with {os.cpu_count()} cores, no GPU: the big models would be slow"
    present = {"auto": True, "cpu": True, "cuda": torch.cuda.is_available(), "mps": has_mps}[config.device]
    remedy = "" if present else f"the settings ask for {config.device}; set device to auto, or install torch for it"
    yield Finding(
        "torch", f"{torch.__version__}, {device}{_unverified(torch.version.hip is not None, has_mps)}", remedy
    )


def _unverified(is_rocm: bool, is_mps: bool) -> str:
    """What nobody has seen running on such a device, said by whoever chose it."""
    if is_rocm:
        return "; through ROCm, on which the big models were never seen: not verified, and without 8 bits"
    if is_mps:
        return "; through MPS, on which the big models were never seen: not verified, and without 8 bits"
    return ""


def _memory(_config: ServerConfig) -> Iterable[Finding]:
    memory = psutil.virtual_memory()
    enough = memory.available >= LEAST_MEMORY_BYTES
    yield Finding(
        "memory",
        f"{memory.available / 1e9:.1f} of {memory.total / 1e9:.1f} GB free",
        "" if enough else f"close other programs: the draft engine wants {LEAST_MEMORY_BYTES / 1e9:.0f} GB",
    )


def _port(config: ServerConfig) -> Iterable[Finding]:
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    where = f"{config.host}, {f'port {config.port}' if config.port else 'any port'}"
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.bind((config.host, config.port))
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        yield Finding(
            "address", f"{where}: {reason}", "end the program that holds it, or choose others in the settings"
        )
        return
    yield Finding("address", f"{where} can be listened on")


def _folders(config: ServerConfig) -> Iterable[Finding]:
    for name, folder in (("models", config.models_dir), ("cache", config.cache_dir), ("log", config.log_dir)):
        nearest = next(p for p in (folder, *folder.parents) if p.exists())
        try:
            with tempfile.TemporaryFile(dir=nearest):
                pass
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            remedy = f"make it writable, or set SFSERVER_{name.upper()}_DIR to another folder"
            yield Finding(f"{name} folder", f"{folder}: {reason}", remedy)
        else:
            yield Finding(f"{name} folder", str(folder) if nearest == folder else f"{folder} (will be made)")


def _server(config: ServerConfig) -> Iterable[Finding]:
    try:
        path = config.connection_file or connections.default_path()
    except NoConnectionFile as error:
        yield Finding("server", "has no place for its connection file", str(error))
        return
    if not path.exists():
        yield Finding("server", f"none is running ({path} is not there)")
        return
    try:
        found = connections.read(path)
        with Client(found, name="sfserver doctor") as client:
            welcome = client.wait_ready(ANSWER_TIMEOUT_S)
    except NoConnectionFile as error:
        yield Finding("server", "its connection file cannot be used", str(error))
    except ServerUnavailable as error:
        yield Finding("server", str(error), f"if none is running, delete {path}; then start one with: sfserver serve")
    else:
        yield Finding("server", f"{welcome.server} answers at {found.endpoint} (pid {found.pid})")


def _video(_config: ServerConfig) -> Iterable[Finding]:
    try:
        with tempfile.TemporaryDirectory() as folder:
            clip = ClipWriter(Path(folder) / "clip.mp4", 64, 64, Fraction(24))
            clip.write(np.zeros((64, 64, 3), np.uint8))
            clip.close()
    except (UserError, OSError) as error:
        yield Finding("video", str(error), "install PyAV anew: pip install --force-reinstall av")
        return
    yield Finding("video", f"H.264 by {h264_encoder()}")


def _engines(config: ServerConfig) -> Iterable[Finding]:
    infos = table.describe_all(config)
    for info in infos:
        if info.available:
            yield Finding(f"engine {info.id}", f"{info.title} is complete")
    try:
        best, reason = table.choose(infos, config)
    except RequestError as error:
        yield Finding("engines", "none is complete", str(error))
        return
    incomplete = [info.id for info in infos if not info.available]
    more = f"; not installed: {', '.join(incomplete)}" if incomplete else ""
    yield Finding("engines", f"auto means {best} ({reason}){more}")
