"""One frozen ServerConfig. Precedence: defaults < config file (TOML) < environment (SFSERVER_*) < flags."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import attrs
import platformdirs
from attrs import field, frozen
from sfwire.regular import read_regular

Device = Literal["auto", "cpu", "cuda", "mps"]
Precision = Literal["auto", "bf16", "fp32", "fp8", "int8"]
Compile = Literal["asked", "beside"]
Attention = Literal["auto", "sage"]
Graphs = Literal["off", "small"]

_MAX_FILE_BYTES = 1024 * 1024
_DIRS = platformdirs.PlatformDirs("sfserver", appauthor=False)


AUTO = -1
"""As many workers as there are devices."""


class ConfigError(ValueError):
    """A setting that cannot be used; the message names the setting, its origin, the value and the remedy."""


@frozen
class ServerConfig:
    """Every setting of the server and the command line that is not part of one request."""

    host: str = "127.0.0.1"
    """Address to listen on. Anything but loopback must be asked for, and is CURVE all the same."""
    port: int = 0
    """0 takes a free one; clients find it in the connection file."""
    workers: int = 1
    """Processes that hold engines, one job each at a time; AUTO: one a device; 0: only such as dial in."""
    devices: str = ""
    """`0,1`: these GPUs, `all` of them, or `cpu`. Without a word one worker takes the first, several take turns."""
    workers_from: str = ""
    """`tcp://ADDRESS:PORT` to let workers dial in there, with the join file that is written beside the connection's."""
    keep: bool = False
    """Go on after the process that started the server has ended."""
    connection_file: Path | None = None
    """Where clients find the server; None is the platform's runtime folder."""
    models_dir: Path = field(factory=lambda: Path(_DIRS.user_data_path) / "models")
    """One folder per model, as `sfserver fetch` and `convert` leave them."""
    cache_dir: Path = field(factory=lambda: Path(_DIRS.user_cache_path))
    """Prompt embeddings, compiled code. May be deleted at any time."""
    log_dir: Path = field(factory=lambda: Path(_DIRS.user_state_path))
    log_level: Literal["debug", "info", "warning"] = "info"
    """Prompts are logged at debug alone."""
    device: Device = "auto"
    journal: bool = True
    """Write the queue down beside the connection file, so that it outlives the server. No prompt and no picture."""
    precision: Precision = "auto"
    """bf16 on CUDA, fp32 elsewhere, unless said otherwise; fp8 and int8 are of the large matrices alone."""
    compile: Compile = "asked"
    """Whether clips are made by compiled code where a request asks for it, after minutes, or where that could be
    compiled beside the clips before it. Such code and eager one differ by the last bits of a float."""
    attention: Attention = "auto"
    """sage: to what was made before in 8 bits, by SageAttention where it is installed; auto: exactly."""
    graphs: Graphs = "off"
    """small: on CUDA, the passes over a block of a small picture are recorded and played; not seen on a GPU yet."""
    beat_timeout_s: float = 0.0
    """A worker whose engine shows no step for this long is replaced; 0: for as long as the engine says it may take."""


def load_config(
    flags: Mapping[str, Any] | None = None,
    environment: Mapping[str, str] = os.environ,
    file: Path | None = None,
) -> ServerConfig:
    """Merge the four sources. `flags` with value None count as not given. Raises ConfigError."""
    file = file or (Path(environment["SFSERVER_CONFIG"]) if "SFSERVER_CONFIG" in environment else None)
    default_file = Path(_DIRS.user_config_path) / "config.toml"
    merged: dict[str, tuple[Any, str]] = {}
    for path, required in ((default_file, False), (file, True)) if file else ((default_file, False),):
        merged |= _from_file(path, required)
    for name in attrs.fields_dict(ServerConfig):
        variable = f"SFSERVER_{name.upper()}"
        if variable in environment:
            merged[name] = (environment[variable], variable)
    merged |= {
        name: (value, f"--{name.replace('_', '-')}") for name, value in (flags or {}).items() if value is not None
    }
    return ServerConfig(**{name: _convert(name, value, origin) for name, (value, origin) in merged.items()})


def _from_file(path: Path | None, required: bool) -> dict[str, tuple[Any, str]]:
    if path is None or not (required or path.is_file()):
        return {}
    try:
        table = tomllib.loads(read_regular(path, _MAX_FILE_BYTES).decode("utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); correct SFSERVER_CONFIG or remove it") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: is not TOML ({error})") from None
    known = attrs.fields_dict(ServerConfig)
    for name in table:
        if name not in known:
            raise ConfigError(f"{path}: unknown setting {name!r}; there are: {', '.join(known)}")
    return {name: (value, str(path)) for name, value in table.items()}


_WORDS = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
_CHOICES = {
    "device": get_args(Device),
    "precision": get_args(Precision),
    "compile": get_args(Compile),
    "attention": get_args(Attention),
    "graphs": get_args(Graphs),
    "log_level": ("debug", "info", "warning"),
}
_RANGES = {"port": (0, 65535), "workers": (0, 64), "beat_timeout_s": (0.0, 86400.0)}


_DEVICES = re.compile(r"all|cpu|[0-9]{1,2}(,[0-9]{1,2})*")
_WORKERS_FROM = re.compile(r"tcp://(\[[0-9A-Fa-f:.%]{2,60}\]|[0-9A-Za-z.\-]{1,253}|\*):([0-9]{1,5})")


def _convert(name: str, value: Any, origin: str) -> Any:
    if name == "workers" and value in ("auto", AUTO, str(AUTO)):
        return AUTO
    if name == "devices" and value and not _DEVICES.fullmatch(str(value)):
        raise ConfigError(f"{origin}: {value!r}; name GPUs by their numbers, as in 0,1; or all, or cpu")
    if name == "workers_from" and value:
        address = _WORKERS_FROM.fullmatch(str(value))
        if not address or int(address[2]) > 65535:
            raise ConfigError(f"{origin}: {value!r} is no address to listen on, as in tcp://192.168.1.5:5600")
    if name in ("models_dir", "cache_dir", "log_dir", "connection_file"):
        return Path(str(value)).expanduser()
    if name in ("keep", "journal"):
        word = str(value).lower()
        if word not in _WORDS:
            raise ConfigError(f"{origin}: {value!r} is neither true nor false")
        return _WORDS[word]
    if name in _CHOICES:
        if value not in _CHOICES[name]:
            raise ConfigError(f"{origin}: {value!r}; choose one of {', '.join(_CHOICES[name])}")
        return value
    if name in _RANGES:
        low, high = _RANGES[name]
        try:
            number = type(low)(value)
        except (TypeError, ValueError):
            raise ConfigError(f"{origin}: {value!r} is not a number") from None
        if not low <= number <= high:
            raise ConfigError(f"{origin}: {number} is outside {low} to {high}")
        return number
    return str(value)
