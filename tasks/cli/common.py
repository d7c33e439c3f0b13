"""What all verbs share: options, exit codes, reading the configuration, printing."""

import asyncio
import getpass
import json
import os
import signal
import socket
import sys
from collections.abc import Coroutine
from enum import IntEnum, StrEnum
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from config.load import ConfigError, find_config, load
from config.logs import configure_logging
from config.settings import Settings
from tasks.loop import loop_factory
from worker.vendors import vendor_keys

T = TypeVar("T")


class Exit(IntEnum):
    """How a verb ends."""

    WELL = 0
    USAGE = 2  # the command line or the configuration
    INCOMPLETE = 3  # done, but some recordings became gaps or failed
    UNUSABLE = 4  # a source or the bucket could not be used at all


class Level(StrEnum):
    """How much to log."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


Config = Annotated[Path | None, typer.Option("--config", help="Configuration file; default: CALLVAULT_CONFIG.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output.")]
LogLevel = Annotated[Level, typer.Option("--log-level", help="What to log, on standard error.")]


def read_settings(config: Path | None, level: Level) -> tuple[Settings, Path]:
    """Read the configuration and set up logging; exit with 2 and all mistakes where there are any."""
    try:
        path = find_config(config, os.environ)
        settings = load(path, vendor_keys(), os.environ)
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
        raise typer.Exit(Exit.USAGE) from error
    configure_logging(json=not sys.stderr.isatty(), level=level, secrets=settings.secrets())
    return settings, path


def who() -> str:
    """Return who gives this command, for what is put on record: the system's name of the user and the machine."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"


def usage(message: str) -> typer.Exit:
    """Say what is wrong with the command line; raise what this returns."""
    sys.stderr.write(f"{message}\n")
    return typer.Exit(Exit.USAGE)


def print_json(document: Any) -> None:
    """Print the one document of `--json`."""
    sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False) + "\n")


def run_async(work: Coroutine[Any, Any, T]) -> T:
    """Run a verb's coroutine; SIGTERM and SIGINT cancel it cleanly, so that nothing half-written stays behind."""

    async def main() -> T:
        loop, task = asyncio.get_running_loop(), asyncio.ensure_future(work)
        caught: list[int] = []

        def stop(number: int) -> None:
            caught.append(number)
            task.cancel()

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop, number)
        try:
            return await task
        except asyncio.CancelledError:
            if caught:
                raise typer.Exit(128 + caught[0]) from None
            raise
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)

    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(main())
