"""A worker with the fake engines on a machine whose calendar says 1980."""

import time

import fake_engines

from sfserver.serve.worker import run

if __name__ == "__main__":
    time.time = lambda: 315_532_800.0
    run(fake_engines)
