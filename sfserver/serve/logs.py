"""The server's log: one JSON line for each event, in the platform's state folder. Prompts appear at debug alone."""

from __future__ import annotations

import logging
from logging.handlers import RotatingFileHandler
from pathlib import Path

import structlog

from ..config import ServerConfig
from .private import private_file, private_folder

MAX_BYTES = 5 * 1024 * 1024
BACKUPS = 2


def log_to_file(config: ServerConfig, name: str) -> Path:
    """Send this process's structlog events to `name` in the log folder; its path. Raises OSError."""
    private_folder(config.log_dir)
    path = config.log_dir / name
    for number in range(BACKUPS + 1):
        private_file(path.with_name(f"{name}.{number}") if number else path)
    handler = RotatingFileHandler(path, maxBytes=MAX_BYTES, backupCount=BACKUPS, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger = logging.getLogger("sfserver")
    logger.handlers = [handler]
    logger.propagate = False
    level = logging.getLevelNamesMapping()[config.log_level.upper()]
    logger.setLevel(level)
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,  # of a mistake of ours, the traceback as text
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=lambda *names: logger.getChild(str(names[0]) if names else "server"),
    )
    return path
