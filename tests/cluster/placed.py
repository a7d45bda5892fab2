"""`python placed.py NOTES --join FILE`: `sfserver worker --join FILE` with the fake engines; leaves word of itself."""

import json
import os
import sys
from pathlib import Path

import psutil
from sfwire.regular import open_regular

from sfserver.config import load_config
from sfserver.serve.keeper import keep

ENGINES = Path(__file__).parents[1] / "serve" / "fake_engines.py"


def raylet_above() -> int:
    """The one that has started this task: of the machine, as Ray sees it."""
    return next(parent.pid for parent in psutil.Process().parents() if "raylet" in parent.name())


if __name__ == "__main__":
    notes, _, file = sys.argv[1:]
    with open_regular(Path(file), 65536) as join:
        facts = {"join": join.read().decode(), "mode": os.fstat(join.fileno()).st_mode & 0o777}
    note = Path(notes) / f"{os.getpid()}.part"
    note.write_text(json.dumps(facts | {"raylet": raylet_above(), "task": os.getppid()}))
    note.rename(note.with_suffix(".json"))
    config = load_config({"log_dir": notes}, environment={})
    sys.exit(keep(Path(file), config, (sys.executable, str(ENGINES))))
