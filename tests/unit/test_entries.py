"""What is in the archive, day by day: read from sidecars, or from the index as far as the listing bears it out."""

from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from config.retention import LockMode
from storage.day_index import Mark, Row, decode, encode
from storage.entry import Entry
from storage.errors import StoreRefused, VersionLocked
from storage.keys import rid
from storage.memory import MemoryStore
from tests.support.bench import NOW
from tests.support.expiring import POLICY, Archive, end_of
from worker.entries import days, read_day, read_entry, sources
from worker.indexing import indexed_days, known_rows, write_rows

DAY = NOW.date()


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    """Return an archive with a policy."""
    return Archive(tmp_path)


async def indexed(archive: Archive) -> list[Row]:
    """Have the day's index written, and return its rows."""
    found = await read_day(archive.services, "hq", DAY)
    await write_rows(archive.services, "hq", DAY, found.rows)
    return found.rows


async def test_an_entry_has_what_the_sidecar_says(archive: Archive) -> None:
    """Facts of the call, media, promise, rule and mode; where its lock stands is for others to see."""
    (recording,) = await archive.add(1)
    entry = await read_entry(archive.services, "hq", DAY, rid(recording.id))
    sidecar = await archive.bench.sidecar(recording)
    assert entry == Entry(
        "hq", DAY, rid(recording.id), recording.id, recording.call, sidecar.media.key, sidecar.media.bytes,
        sidecar.media.sha256, sidecar.archive.archived_at, end_of(recording), None, LockMode.GOVERNANCE, None,
    )  # fmt: skip
    assert entry.sidecar_key(archive.keys) in archive.of(recording)


async def test_sources_and_days_are_those_of_the_bucket(archive: Archive) -> None:
    """Also of sources that no configuration has any more; what is not of the layout is passed over."""
    await archive.add(1)
    await archive.add(2, days_ago=3)
    for key in ("source=old/date=2020-02-29/a.json", "source=hq/date=tomorrow/a.json", "source=hq/x/a.json", "x/y"):
        archive.put_aside(f"v1/recordings/{key}")
    assert await sources(archive.services) == ["hq", "old"]
    assert await days(archive.services, "hq") == [date(2026, 3, 2), DAY]
    assert await days(archive.services, "old") == [date(2020, 2, 29)]


async def test_sidecars_that_are_none_are_told(archive: Archive) -> None:
    """No JSON, another schema's, or one that speaks of another recording or source; media are no sidecars."""
    (recording,) = await archive.add(1)
    prefix = f"v1/recordings/source=hq/date={DAY}/"
    copy = archive.store.versions_of[f"{prefix}{recording.id}.json"][0].body
    archive.put_aside(f"{prefix}no-json.json", b"<html>")
    archive.put_aside(f"{prefix}copy.json", copy)
    archive.put_aside(f"{prefix}mode.json", copy.replace(b'"governance"', b'"forever"').replace(b"rec-1", b"mode"))
    archive.put_aside(f"{prefix}not a key.json", b"{}")
    found = await read_day(archive.services, "hq", DAY)
    assert [entry.recording_id for entry in found.entries] == [recording.id]
    assert found.unreadable == [f"{prefix}copy.json", f"{prefix}mode.json", f"{prefix}no-json.json"]
    assert found.read == 1


async def test_with_an_index_nothing_is_read(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    """But the listing, the index, and what is new since."""
    await archive.add(1, 2)
    rows = await indexed(archive)
    await archive.add(3)
    asked: list[str] = []
    get = MemoryStore.get

    async def noted(self: MemoryStore, key: str, *, max_bytes: int) -> bytes:
        asked.append(key.rpartition("/")[2])
        return await get(self, key, max_bytes=max_bytes)

    monkeypatch.setattr(MemoryStore, "get", noted)
    found = await read_day(archive.services, "hq", DAY, indexed=True)
    assert asked == [f"date={DAY}.json.gz", "rec-3.json"]
    assert found.rows[:2] == rows
    assert found.read == 1
    assert found.rows == (await read_day(archive.services, "hq", DAY)).rows


async def test_what_the_listing_contradicts_is_read(archive: Archive) -> None:
    """A row of another size or time, and rows of what is gone, are not believed."""
    first, second, third = await archive.add(1, 2, 3)
    rows = await indexed(archive)
    lies = [
        Row(Mark(rows[0].mark.bytes + 1, rows[0].mark.modified), rows[1].entry),
        Row(Mark(rows[1].mark.bytes, rows[1].mark.modified - 1), rows[0].entry),
        rows[2],
    ]
    await write_rows(archive.services, "hq", DAY, lies)
    del archive.store.versions_of[archive.of(third)[0]]
    found = await read_day(archive.services, "hq", DAY, indexed=True)
    assert [entry.recording_id for entry in found.entries] == [first.id, second.id]
    assert found.read == 2
    assert found.gone == [rows[2]]


async def test_what_is_destroyed_meanwhile_is_passed_over(archive: Archive) -> None:
    """It was listed, and is gone when it is read."""
    first, second = await archive.add(1, 2)

    async def gone(name: str, key: str) -> None:
        if name == "get" and key.endswith("rec-1.json"):
            del archive.store.versions_of[key]

    archive.store.before = gone
    found = await read_day(archive.services, "hq", DAY)
    assert [entry.recording_id for entry in found.entries] == [second.id]
    assert (found.unreadable, found.read) == ([], 1)
    assert first


@pytest.mark.parametrize("body", [b"", b"junk", encode("branch", DAY, [])], ids=["empty", "junk", "another source's"])
async def test_a_damaged_index_is_as_good_as_none(archive: Archive, body: bytes) -> None:
    """The sidecars are read."""
    await archive.add(1)
    archive.put_aside(archive.keys.index("hq", DAY), body)
    assert await known_rows(archive.services, "hq", DAY) == {}
    assert (await read_day(archive.services, "hq", DAY, indexed=True)).read == 1


async def test_an_index_is_written_anew_and_its_older_versions_go(archive: Archive) -> None:
    """They are of no use to anybody; without versions, or the right to delete them, that is well, too."""
    await archive.add(1)
    rows = await indexed(archive)
    await write_rows(archive.services, "hq", DAY, [])
    key = archive.keys.index("hq", DAY)
    (left,) = archive.store.versions_of[key]
    assert decode(left.body, "hq", DAY) == {}
    for error in (StoreRefused("no right"), VersionLocked("a default retention")):
        archive.store.delete_version = refuse(error)  # type: ignore[method-assign]
        await write_rows(archive.services, "hq", DAY, rows)
    assert len(archive.store.versions_of[key]) == 3
    assert list((await known_rows(archive.services, "hq", DAY)).values()) == rows


def refuse(error: Exception) -> object:
    """Return a deletion that fails."""

    async def delete_version(key: str, version_id: str | None) -> None:
        raise error

    return delete_version


async def test_without_versions_an_index_replaces_the_one_before(tmp_path: Path) -> None:
    """There is nothing to tidy up."""
    archive = Archive(tmp_path, POLICY.__class__(), versioned=False)
    await archive.add(1)
    rows = await indexed(archive)
    assert await indexed(archive) == rows
    assert list((await known_rows(archive.services, "hq", DAY)).values()) == rows


async def test_which_days_have_an_index(archive: Archive) -> None:
    """By their keys; others' objects are passed over."""
    await archive.add(1)
    await indexed(archive)
    for name in ("date=2020-02-29.json.gz", "date=2020-02-30.json.gz", "date=2020-02-28.txt", "day=2020-02-27.json.gz"):
        archive.put_aside(f"v1/index/source=hq/{name}")
    assert await indexed_days(archive.services, "hq") == [date(2020, 2, 29), DAY]


async def test_an_archive_time_without_a_clock_in_the_call_counts(archive: Archive) -> None:
    """What was read is aware, in UTC."""
    await archive.add(1)
    (entry,) = (await read_day(archive.services, "hq", DAY)).entries
    assert entry.archived_at == NOW.astimezone(UTC)
    assert isinstance(entry.archived_at, datetime)
