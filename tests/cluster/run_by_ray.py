"""`python run_by_ray.py CONNECTION LOG_DIR ADDRESS NOTES [name=value ...]`: `serve --ray` with the fake engines."""

import sys
from pathlib import Path

from sfserver.commands.launching import by_ray_at
from sfserver.config import load_config
from sfserver.serve.supervise import serve

if __name__ == "__main__":
    connection, log_dir, address, notes, *settings = sys.argv[1:]
    given = dict(setting.split("=", 1) for setting in settings)
    command, idle_s = (str(Path(__file__).with_name("placed.py")), notes, "--join"), float(given.pop("idle_s", "120"))
    flags = {"connection_file": connection, "log_dir": log_dir, **given}
    flags, launcher = by_ray_at(address, 0.0, flags, command, idle_s)
    sys.exit(serve(load_config(flags, environment={}), launcher=launcher))
