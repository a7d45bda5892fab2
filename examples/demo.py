"""`make demo`: the whole road. Start the real server, send it two pictures over the real wire, collect the frames."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
OUT = HERE.parent / "demo"
PAIRS = {
    "toy": "a toy robot raises its arm and waves while a beach ball rolls by, studio light",
    "drawn": "a fox lifts its head and sniffs the wind, storyboard, ink and flat colour",
}
SFSERVER = (sys.executable, "-m", "sfserver")


def main() -> int:
    shutil.rmtree(OUT, ignore_errors=True)
    with tempfile.TemporaryDirectory() as private:
        environment = os.environ | {
            "SFSERVER_CONNECTION_FILE": f"{private}/connection.json",
            "SFSERVER_LOG_DIR": f"{private}/log",
        }
        server = subprocess.Popen([*SFSERVER, "serve"], env=environment, stdout=subprocess.PIPE, text=True)
        try:
            assert server.stdout is not None
            print(server.stdout.readline().strip() or "the server did not start", flush=True)  # noqa: T201
            return max(generate(name, prompt, environment) for name, prompt in PAIRS.items())
        finally:
            server.terminate()
            server.wait(15)


def generate(name: str, prompt: str, environment: dict[str, str]) -> int:
    pictures = [str(HERE / f"{name}_{which}.png") for which in ("start", "end")]
    command = [*SFSERVER, "generate", *pictures, "--prompt", prompt, "--frames", "17", "--connect"]
    return subprocess.run([*command, "--out", str(OUT / name)], env=environment).returncode


if __name__ == "__main__":
    sys.exit(main())
