"""The week's audit by the clock: once a week, one at a time, and gone on with where it was."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.expiring import Archive
from worker.audit_turns import NOTE, scheduled
from worker.drift import Audited


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    """Return an archive of three days."""
    return Archive(tmp_path)


class Sent:
    """Counts how often the next turn was asked for."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self) -> None:
        self.times += 1


async def test_once_a_week(archive: Archive) -> None:
    """Asked for every day, done every seventh; its figures are on record."""
    await archive.add(1)
    done, send = [], Sent()
    for _ in range(15):
        done.append(await scheduled(archive.services, send) is not None)
        archive.later(1)
    assert [day for day, was in enumerate(done) if was] == [0, 7, 14]
    assert send.times == 0
    told = await archive.services.state.noted(NOTE)
    assert (told["done"], told["versions"], told["reported"]) == ("yes", "2", "0")


async def test_one_at_a_time(archive: Archive) -> None:
    """Whoever comes second leaves it alone."""
    lease = await archive.services.state.lease("audit", 60)
    assert lease
    assert await scheduled(archive.services, Sent()) is None
    await lease.release()
    assert await scheduled(archive.services, Sent()) is not None


async def test_turns(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    """A turn that is over asks for the next, which goes on; all of it is one audit with one sum."""
    for days in range(3):
        await archive.add(days, days_ago=days)
    monkeypatch.setattr("worker.audit_turns.TURN_SECONDS", 50.0)

    async def slow(name: str, key: str) -> None:
        if (name, key[:13]) == ("versions", "v1/recordings"):
            archive.clock.advance(40)

    archive.store.before = slow
    send = Sent()
    first = await scheduled(archive.services, send)
    assert first
    assert (first.objects, first.done, send.times) == (4, False, 1)
    archive.later(2)
    second = await scheduled(archive.services, send)
    assert second
    assert (second.objects, second.well, second.done, send.times) == (6, 6, True, 1)


async def test_a_death_costs_little(archive: Archive) -> None:
    """What was saved on the way is where the next turn goes on."""
    for days in range(3):
        await archive.add(days, days_ago=days)
    seen = []

    async def dies(name: str, key: str) -> None:
        if name == "versions":
            archive.clock.advance(31)
            seen.append(key)
            if len(seen) == 3:
                raise KeyboardInterrupt

    archive.store.before = dies
    with pytest.raises(KeyboardInterrupt):
        await scheduled(archive.services, Sent())
    report = await scheduled(archive.services, Sent())
    assert report
    assert (report.objects, report.done) == (6, True)
    assert seen[2:4] == [seen[2]] * 2
    assert len(set(seen)) == len(seen) - 1


WRONG: list[Any] = [
    None,
    "junk",
    [],
    {},
    {"objects": 1},
    {**dict.fromkeys(Audited.__slots__, 0), "reported": {"gone": "x"}, "findings": [], "at": ""},
    {**dict.fromkeys(Audited.__slots__, 0), "reported": {}, "findings": "x", "at": ""},
    {**dict.fromkeys(Audited.__slots__, 0), "reported": {}, "findings": [], "at": 5},
]


@pytest.mark.parametrize("left", [*(json.dumps(told) for told in WRONG), "{", "[" * 100_000])
async def test_what_cannot_be_understood_is_begun_anew(archive: Archive, left: str) -> None:
    """Another version's state, a stranger's, or none: it costs another look."""
    await archive.add(1)
    await archive.services.state.note(NOTE, {"begun": archive.clock.now().isoformat(), "done": ""})
    await archive.services.state.stash(NOTE, left, 60)
    report = await scheduled(archive.services, Sent())
    assert report
    assert (report.objects, report.done) == (2, True)
