"""From the lines that pip or `sfserver fetch` printed: how far it is; and why it ended, in a sentence with the remedy.

No Blender here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

_DOWNLOADING = re.compile(r"\s*Downloading (\S+?)-\d\S* \(([\d.]+) ([kMG]?B)\)")
_PROGRESS = re.compile(r"Progress (\d+) of (\d+)$")
_INSTALLING = re.compile(r"Installing collected packages: (.+)")
_FETCHING = re.compile(r"(.+): (\d+) of (\d+)$")
_SENTENCE = re.compile(r"^(?:held|sfserver): (.+)$", re.MULTILINE)
_UNITS = {"B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9}

_REMEDIES = (
    (r"No space left on device|WinError 112|Errno 28|not enough space", "The disk is full: make room, then continue"),
    (
        r"Windows Long Path|WinError 206|Errno 36|File name too long",
        "The path of this folder is too long for the system: allow long paths in Windows, or use a shorter user folder",
    ),
    (r"CERTIFICATE_VERIFY_FAILED|SSLError|SSLCertVerification", "The package index has no certificate that this "
     "computer trusts: set the clock, or your proxy's certificate by PIP_CERT, then continue"),
    (r"ProxyError|407 |Proxy Authentication", "The proxy refused: set HTTPS_PROXY with its user and password, restart "
     "Blender, then continue"),
    (
        r"NewConnectionError|NameResolution|name resolution|getaddrinfo|ConnectTimeout|ConnectionReset|ReadTimeout|"
        r"Max retries exceeded|Network is unreachable|Connection refused|Connection aborted|ConnectionError|"
        r"IncompleteRead|incomplete-download|IncompleteDownload|timed out",
        "The package index cannot be reached: check the network, then continue; what has come is kept",
    ),
    (r"DO NOT MATCH THE HASHES|hash mismatch|BadZipFile|has an invalid wheel", "A file came damaged: continue, it is "
     "downloaded again"),
    (r"Read-only file system|WinError 19|Errno 30", "The folder cannot be written, its disk is read-only: choose "
     "another user folder for Blender"),
    (r"Permission denied|WinError 5|WinError 32|Errno 13|Access is denied", "A file cannot be written or is in use: "
     "stop servers that run from this folder, check who may write to it, then continue"),
)  # fmt: skip
"""The first that is found counts."""
_REFUSED = re.compile(
    r"(?:HTTP error |: |too many )((?!404)[45]\d\d) (?:Client Error|Server Error|error responses|while|.*?Error)"
)
_NO_MATCH = re.compile(r"No matching distribution found for (\S+)")
_CONFLICT = re.compile(r"ResolutionImpossible|conflicting dependencies")
_MAX_LINE_CHARS = 200


@dataclass
class Reader:
    """Give it every line."""

    doing: str = ""
    """What it does now, in a few words."""
    downloaded: int = 0
    """Bytes, those of the file that is coming included."""
    expected: int = 0
    """Bytes of what is coming, where the program says how much that is."""
    installing: bool = False
    _before: int = 0
    _name: str = ""
    _size: int = 0

    def read(self, line: str) -> None:
        progress = _PROGRESS.match(line)
        if progress is not None:
            done, size = map(int, progress.groups())
            self.downloaded = self._before + done
            self.doing = f"Downloading {self._name}, {done / 1e6:.0f} of {size / 1e6:.0f} MB"
            self._size = size
            return
        started = _DOWNLOADING.match(line)
        if started is not None:
            self._before += self._size
            self._name, self._size = started[1].replace("_", "-"), int(float(started[2]) * _UNITS[started[3]])
            self.doing = f"Downloading {self._name}"
            return
        packages = _INSTALLING.match(line)
        if packages is not None:
            self._before, self._size = self._before + self._size, 0
            self.downloaded = self._before
            self.installing, self.doing = True, f"Unpacking {packages[1].count(',') + 1} packages"
            return
        fetched = _FETCHING.match(line)
        if fetched is not None:
            self.downloaded, self.expected = int(fetched[2]), int(fetched[3])
            size = f", {self.downloaded / 1e6:.0f} of {self.expected / 1e6:.0f} MB" if self.expected > 1e6 else ""
            self.doing = f"{fetched[1][:60]}{size}"


def explain(lines: Sequence[str], code: int) -> str:
    """Why a program that printed these lines ended with this exit code."""
    text = "\n".join(lines)
    said = _SENTENCE.findall(text)
    if said:
        return said[-1]
    for pattern, sentence in _REMEDIES[:2]:
        if re.search(pattern, text):
            return sentence
    refused = _REFUSED.search(text)
    if refused is not None:
        return (
            f"The package index refused, with HTTP code {refused[1]}: try again later, or choose another Package Source"
        )
    for pattern, sentence in _REMEDIES[2:]:
        if re.search(pattern, text):
            return sentence
    missing = _NO_MATCH.search(text)
    if missing is not None:
        return (
            f"The package source has no {missing[1]} for this system and Python: choose another Package Source, or "
            "another Blender"
        )
    if _CONFLICT.search(text):
        return "The package source has no set of versions that fit together: choose another Package Source"
    if code < 0:
        return f"The installation was killed, by signal {-code}: continue"
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")
    return f"The installation ended with exit code {code}: {last[:_MAX_LINE_CHARS]}"
