"""Logging is set up for a whole process; tests that do so put it back."""

import contextlib
import logging
from collections.abc import Iterator

import structlog

_LEVELLED = ("amqp", "boto3", "botocore", "s3transfer", "urllib3")


@contextlib.contextmanager
def logging_as_before() -> Iterator[None]:
    """Undo, at the end, what `configure_logging` changes."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    levels = {name: logging.getLogger(name).level for name in _LEVELLED}
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        for name, number in levels.items():
            logging.getLogger(name).setLevel(number)
        logging.captureWarnings(capture=False)
        structlog.reset_defaults()
