"""The machine's clock, and the version that the process calls itself."""

from datetime import UTC, datetime, timedelta
from importlib.metadata import PackageNotFoundError

import pytest

from config import callvault_version
from config.clock import SystemClock


async def test_the_clock_is_the_machines() -> None:
    """Wall time is aware and in UTC, the steady clock does not go back, and waiting for nothing returns."""
    clock = SystemClock()
    before, steady = datetime.now(UTC), clock.monotonic()
    await clock.sleep(0)
    assert before <= clock.now() <= datetime.now(UTC)
    assert clock.now().utcoffset() == timedelta(0)
    assert clock.monotonic() >= steady


def test_the_version_is_the_installed_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """The version comes from the installation; a tree that was never installed says so."""
    monkeypatch.setattr("config.version", lambda name: f"1.2.3 of {name}")
    assert callvault_version() == "1.2.3 of callvault"

    def absent(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr("config.version", absent)
    assert callvault_version() == "0+unknown"
