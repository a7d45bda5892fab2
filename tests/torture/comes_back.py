"""`python comes_back.py CONNECTION FOLDER SEED FRAMES`: a program that asks for what is not in FOLDER yet."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from sfwire.client import Client
from sfwire.request import Request

SIDE = 32
GIVE_UP_AFTER_S = 300.0


def main(connection: Path, folder: Path, seed: int, frames: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    black = bytes(SIDE * SIDE * 3)
    missing = [index for index in range(1, frames - 1) if not (folder / f"{index}.raw").exists()]
    if not missing:
        return
    keyframes = (0, black), (frames - 1, black)
    request = Request(
        keyframes, SIDE, SIDE, frames, seed=seed, params={"delay_ms": 10.0}, start_from=missing[0], priority="batch"
    )
    with Client(connection, name="comes back", give_up_after_s=GIVE_UP_AFTER_S) as client:
        for picture in client.submit(request):
            part = folder / f"{picture.index}.part"
            part.write_bytes(picture.data)
            os.replace(part, folder / f"{picture.index}.raw")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
