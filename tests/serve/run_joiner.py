"""`python run_joiner.py JOIN LOG_DIR [name=value ...]`: `sfserver worker --join` with the fake engines, for tests."""

import sys
from pathlib import Path

from sfserver.config import ConfigError, load_config
from sfserver.errors import UserError
from sfserver.serve.keeper import keep

if __name__ == "__main__":
    join, log_dir, *settings = sys.argv[1:]
    flags = dict(setting.split("=", 1) for setting in settings)
    worker = flags.pop("worker", str(Path(__file__).with_name("fake_engines.py")))
    try:
        sys.exit(keep(Path(join), load_config({"log_dir": log_dir, **flags}, environment={}), (sys.executable, worker)))
    except (UserError, ConfigError) as error:
        sys.exit(str(error))
