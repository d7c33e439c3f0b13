"""The machine's clock, and the version that the process calls itself."""

from datetime import UTC, datetime, timedelta

from config.clock import SystemClock


async def test_the_clock_is_the_machines() -> None:
    """Wall time is aware and in UTC, the steady clock does not go back, and waiting for nothing returns."""
    clock = SystemClock()
    before, steady = datetime.now(UTC), clock.monotonic()
    await clock.sleep(0)
    assert before <= clock.now() <= datetime.now(UTC)
    assert clock.now().utcoffset() == timedelta(0)
    assert clock.monotonic() >= steady
