"""Whose turn it is to destroy: one run at a time, one a day, gone on with until it is over."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from storage.errors import StoreUnavailable
from storage.state import StateUnavailable
from tests.support.expiring import POLICY, Archive
from tests.support.meddled import nothing
from worker import expiry, turns
from worker.expiry import Expired
from worker.turns import NOTE, TURN_SECONDS, alone, scheduled

SILENT = b"RIFF\x24\0\0\0WAVEfmt tone"


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    """Return an empty archive under thirty days for all."""
    return Archive(tmp_path)


async def turn(archive: Archive, sent: list[None] | None = None) -> Expired | None:
    """Take a turn; asking for the next one leaves a None in `sent`."""
    return await scheduled(archive.services, "clock", lambda: (sent if sent is not None else []).append(None))


async def test_a_turn_does_the_days_run_and_the_day_has_one(archive: Archive) -> None:
    """Asked for again it does nothing; the next day it does."""
    await archive.add(1)
    archive.later(31)
    sent: list[None] = []
    report = await turn(archive, sent)
    assert report
    assert (report.destroyed, sent) == (1, [])
    assert archive.certificates()[0].by == "clock"
    told = await archive.services.state.noted(NOTE)
    assert (told["done"], told["destroyed"], told["error"]) == ("yes", "1", "")
    archive.later(0.4)
    assert await turn(archive, sent) is None
    archive.later(0.6)
    assert await turn(archive, sent) is not None
    assert sent == []


async def test_only_one_run_at_a_time(archive: Archive) -> None:
    """Whoever comes second leaves everything alone."""
    async with alone(archive.services) as first:
        assert first
        assert first()
        assert await turn(archive) is None
        async with alone(archive.services) as second:
            assert second is None
    assert await turn(archive) is not None


async def test_a_turn_that_is_over_asks_for_the_next_which_goes_on(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within what is left of the limit, in as many turns as it takes; the note says how far it is."""
    monkeypatch.setattr(expiry, "BATCH", 2)
    archive.policy(replace(POLICY, expire_at_most=5))
    await archive.add(*range(7), body=SILENT)
    archive.later(31)

    async def takes_long(name: str, key: str) -> None:
        if name == "put" and "/certificates/" in key:
            archive.clock.advance(TURN_SECONDS * 0.6)

    archive.store.after = takes_long
    sent: list[None] = []
    destroyed = []
    for number in (1, 2, 3):
        report = await turn(archive, sent)
        assert report
        destroyed.append(report.destroyed)
        told = await archive.services.state.noted(NOTE)
        assert (told["left"], told["done"]) == (str(5 - sum(destroyed)), "yes" if number == 3 else "")
        assert len(sent) == min(number, 2)
    assert destroyed == [2, 2, 1]
    assert report.limited


async def test_a_run_whose_process_died_is_gone_on_with(archive: Archive) -> None:
    """Whoever takes the next turn, also the one that the clock sends; trouble with the bucket is raised."""
    archive.policy(replace(POLICY, expire_at_most=3))
    await archive.add(1, 2, 3, 4, body=SILENT)
    archive.later(31)

    async def fails(name: str, key: str) -> None:
        if name == "delete_version":
            raise StoreUnavailable("503", key)

    archive.store.before = fails
    with pytest.raises(StoreUnavailable):
        await turn(archive)
    archive.store.before = nothing
    await archive.services.state.note(NOTE, {**await archive.services.state.noted(NOTE), "left": "2"})
    report = await turn(archive)
    assert report
    assert (report.destroyed, report.limited) == (3, True)  # the certificate that was begun is finished whole


async def test_a_note_that_makes_no_sense_begins_a_new_run(archive: Archive) -> None:
    """The state is disposable."""
    await archive.add(1)
    archive.later(31)
    await archive.services.state.note(NOTE, {"left": "many", "done": "", "begun": "yesterday"})
    report = await turn(archive)
    assert report
    assert report.destroyed == 1


class _Lapsing:
    """A lease that cannot be renewed: lost to another, or the state is away."""

    fence = 1

    def __init__(self, error: Exception | None) -> None:
        self.error = error
        self.asked = asyncio.Event()

    async def renew(self) -> bool:
        self.asked.set()
        if self.error:
            raise self.error
        return False

    async def release(self) -> None:
        raise StateUnavailable("away")


@pytest.mark.parametrize("error", [None, StateUnavailable("away")])
async def test_a_run_that_lost_its_lease_stops(
    archive: Archive, monkeypatch: pytest.MonkeyPatch, error: Exception | None
) -> None:
    """Before its next batch: another may have begun."""
    lease = _Lapsing(error)

    async def granted(name: str, ttl: float) -> Any:
        return lease

    monkeypatch.setattr(archive.services.state, "lease", granted)
    monkeypatch.setattr(turns, "_RENEW_EVERY", 0)
    async with alone(archive.services) as holds:
        assert holds
        await lease.asked.wait()
        for _ in range(3):
            await asyncio.sleep(0)
        assert not holds()
        await archive.add(1)
        archive.later(31)
        report = await archive.expire(go_on=holds)
    assert (report.destroyed, report.more) == (0, True)


async def test_the_figures_can_be_printed(archive: Archive) -> None:
    """As one JSON document."""
    await archive.add(1)
    archive.later(31)
    report = await turn(archive)
    assert report
    assert json.loads(json.dumps(report.public()))["destroyed"] == 1
