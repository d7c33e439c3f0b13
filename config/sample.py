"""The commented configuration file that `callvault init` writes: `sample.toml`, which lies beside this file."""

from importlib.resources import files


def sample_configuration() -> str:
    """Return a file with every key explained, one source switched on and one of each other vendor switched off."""
    return files("config").joinpath("sample.toml").read_text("utf-8")
