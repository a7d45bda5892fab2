"""The target led by coverage: atheris changes bytes and keeps what reaches code that nothing reached before.

`python -m tests.torture.fuzz COUNT SEED FOLDER`. A process of its own: libFuzzer ends the one it runs in. It writes how
far it came, and what it found, to FOLDER/fuzz.json.
"""

from __future__ import annotations

import contextlib
import json
import random
import sys
import traceback
from collections import Counter
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["sfwire", "sfserver.serve", "msgpack.fallback", "cattrs"]):
    from sfwire import codec, messages, session  # noqa: F401

    from sfserver.serve import broker, jobs  # noqa: F401

from wire_examples import PICTURE

from .mutate import corpus, with_other_values
from .target import Target

REPORT_EVERY = 5000
FOUND_AT_MOST = 20


class Fuzz:
    """Bytes as libFuzzer makes them: the first says where to and how many pictures, the rest is a header."""

    def __init__(self, count: int, folder: Path) -> None:
        self.target = Target()
        self.count = count
        self.done = 0
        self.found: list[tuple[str, str]] = []
        self.report = folder / "fuzz.json"

    def one(self, data: bytes) -> None:
        if not data or self.done >= self.count:
            return
        self.done += 1
        try:
            self.target.hear(data[0] % 2 == 0, [data[1:], *[PICTURE] * (data[0] // 2 % 4)])
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            what = f"{type(error).__name__} at {Path(where.filename).name}:{where.lineno}: {error}"[:300]
            if len(self.found) < FOUND_AT_MOST:
                self.found.append((what, data[:200].hex()))
            self.target = Target(self.target.seen)
        if self.done % REPORT_EVERY == 0 or self.done >= self.count:
            self.write()

    def changed(self, data: bytes, max_size: int, seed: int) -> bytes:
        """Half of the time values are swapped in place of bytes: libFuzzer knows no msgpack and would break it."""
        rng = random.Random(seed)
        if rng.random() < 0.5:
            with contextlib.suppress(Exception):  # it is no map, or one that cannot be written again
                changed = data[:1] + with_other_values(rng, data[1:])
                if len(changed) <= max_size:
                    return changed
        return atheris.Mutate(data, max_size)

    def write(self) -> None:
        body = {"done": self.done, "found": self.found, "seen": Counter(self.target.seen)}
        part = self.report.with_suffix(".part")
        part.write_text(json.dumps(body))
        part.replace(self.report)


def main() -> None:
    count, seed, folder = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    seeds = folder / "corpus"
    seeds.mkdir(parents=True, exist_ok=True)
    for to_server in (True, False):
        for number, header in enumerate(corpus(to_server)):
            (seeds / f"{to_server}{number}").write_bytes(bytes([(0 if to_server else 1) + 2 * (number < 2)]) + header)
    fuzz = Fuzz(count, folder)
    options = [
        f"-runs={count + 1000}",
        f"-seed={seed % 2**31 or 1}",
        "-max_len=4096",
        "-verbosity=0",
        "-print_final_stats=0",
    ]
    atheris.Setup([sys.argv[0], *options, str(seeds)], fuzz.one, custom_mutator=fuzz.changed)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
