"""A film of anybody's, opened so that it leads nowhere else.

Among what FFmpeg calls formats are playlists, which name other files of this machine, and its names of files may be
addresses: a file that is called `tcp:host:80` would be connected to. So only containers that hold their pictures are
opened, by a name that cannot be taken for anything but a file's.
"""

from __future__ import annotations

from pathlib import Path

import av
from av.container import InputContainer

FORMATS = ("mov", "matroska", "avi", "mpegts", "mpeg", "mxf", "flv", "ogg", "gif", "asf", "dv", "nut", "ivf")
"""FFmpeg's names. No `hls`, `dash`, `concat`, `sdp`, `imf`, `image2`."""


def open_film(path: Path) -> InputContainer:
    """To be used in a `with`. Raises what PyAV raises, for a file of another kind too."""
    allowed = {"format_whitelist": ",".join(FORMATS), "protocol_whitelist": "file"}
    return av.open(f"file:{path.absolute()}", options=allowed)
