"""Configuration files for tests: a right one to spoil, and what the loader says of the spoilt one."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from config.load import load
from config.mistakes import ConfigError
from config.settings import Settings, VendorKeys
from tests.support.vendor_shapes import SHAPES

RIGHT = """
[archive]
bucket = "acme-calls"

[[sources]]
name = "hq"
vendor = "yeastar"
url = "https://pbx.example.net:8088"
timezone = "Europe/Rome"
username = "api"
password = { env = "HQ_PASSWORD" }
"""
ENVIRON = {"HQ_PASSWORD": "open-sesame-5550100", "EMPTY": "", "OTHER": "another-secret-5550101"}


def read(
    folder: Path,
    toml: str | bytes,
    environ: Mapping[str, str] | None = None,
    vendors: Mapping[str, VendorKeys] | None = None,
) -> Settings:
    """Load a text as `callvault.toml` in the folder."""
    path = folder / "callvault.toml"
    path.write_bytes(toml if isinstance(toml, bytes) else toml.encode())
    return load(path, SHAPES if vendors is None else vendors, ENVIRON if environ is None else environ)


def mistakes(folder: Path, toml: str | bytes, environ: Mapping[str, str] | None = None) -> list[str]:
    """Return what the loader finds wrong, a line for each, without the file's name that begins each."""
    with pytest.raises(ConfigError) as caught:
        read(folder, toml, environ)
    start = f"{folder / 'callvault.toml'}: "
    lines = str(caught.value).split("\n")
    assert all(line.startswith(start) for line in lines)
    assert [line.removeprefix(start) for line in lines] == caught.value.mistakes
    return caught.value.mistakes


def only(folder: Path, toml: str | bytes, environ: Mapping[str, str] | None = None) -> str:
    """Return the one mistake there is."""
    found = mistakes(folder, toml, environ)
    assert len(found) == 1, found
    return found[0]
