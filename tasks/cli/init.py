"""`callvault init`: a commented configuration file to start from."""

from pathlib import Path

import typer

from config.sample import sample_configuration
from tasks.cli.common import Config, usage

DEFAULT = Path("callvault.toml")


def init(config: Config = None) -> None:
    """Write a commented configuration file; never overwrite one."""
    path = config or DEFAULT
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(sample_configuration())
    except FileExistsError as error:
        raise usage(f"{path} exists already and is left as it is; give another name with --config") from error
    except OSError as error:
        raise usage(f"{path} cannot be written: {error.strerror}") from error
    typer.echo(f"{path} written. Edit it, then: callvault check --config {path}")
