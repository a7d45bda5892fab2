"""`python run_server.py CONNECTION LOG_DIR [name=value ...]`: the real server with the fake engines, for tests."""

import sys
from pathlib import Path

from sfserver.config import ConfigError, load_config
from sfserver.serve.supervise import serve

if __name__ == "__main__":
    connection, log_dir, *settings = sys.argv[1:]
    flags = dict(setting.split("=", 1) for setting in settings)
    worker = flags.pop("worker", str(Path(__file__).with_name("fake_engines.py")))
    config = load_config({"connection_file": connection, "log_dir": log_dir, **flags}, environment={})
    try:
        sys.exit(serve(config, (sys.executable, worker)))
    except ConfigError as error:
        sys.exit(str(error))
