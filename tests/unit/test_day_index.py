"""The index of a day: what is written is read, and nothing else is taken for one."""

import gzip
import json
import zlib
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.retention import LockMode
from storage.day_index import Mark, Row, decode, encode
from storage.entry import Entry
from storage.sidecar import CallFacts, Direction
from storage.store import ObjectInfo, Version

DAY = date(2026, 3, 5)
NOW = datetime(2026, 3, 5, 12, 0, 0, 250_000, tzinfo=UTC)
CALL = CallFacts(started_at=NOW, ended_at=NOW + timedelta(seconds=9), duration_seconds=9.5, direction=Direction.INBOUND)
ENTRY = Entry("hq", DAY, "r-1", "r-1", CALL, "v1/x.wav", 10, "0" * 64, NOW, NOW, "desk", LockMode.GOVERNANCE, NOW)
ROW = Row(Mark(1400, 1772712000), ENTRY)

texts = st.none() | st.text(max_size=20)
known = st.timedeltas(timedelta(0), timedelta(days=36500)).map(lambda since: datetime(1990, 1, 1, tzinfo=UTC) + since)
moments = st.none() | known
calls = st.builds(
    CallFacts,
    started_at=moments,
    ended_at=moments,
    duration_seconds=st.none() | st.floats(0, 1e6),
    direction=st.sampled_from(Direction),
    from_=texts,
    to=texts,
    agent=texts,
    queue=texts,
    call_id=texts,
)
entries = st.builds(
    Entry,
    source=st.just("hq"),
    day=st.just(DAY),
    rid=st.text("abc~123", min_size=1, max_size=9),
    recording_id=st.text(max_size=9),
    call=calls,
    media_key=st.text(max_size=9),
    media_bytes=st.integers(0, 2**40),
    sha256=st.text("0123456789abcdef", min_size=64, max_size=64),
    archived_at=known,
    promised=moments,
    rule=texts,
    lock_mode=st.none() | st.sampled_from(LockMode),
    locked=moments,
)
marks = st.builds(Mark, st.integers(0, 2**40), st.integers(0, 2**33))


@given(st.lists(st.builds(Row, marks, entries), max_size=5, unique_by=lambda row: row.entry.rid))
def test_what_is_written_is_read(rows: list[Row]) -> None:
    """Every field of every row, in the same order; and the same rows make the same bytes."""
    body = encode("hq", DAY, rows)
    assert list(decode(body, "hq", DAY).values()) == rows
    assert body == encode("hq", DAY, rows)


def spoilt(**columns: Any) -> bytes:
    """Return an index of one row with other columns; None takes one away."""
    told = json.loads(gzip.decompress(encode("hq", DAY, [ROW])))
    told["columns"].update(columns)
    told["columns"] = {name: values for name, values in told["columns"].items() if values is not None}
    return gzip.compress(json.dumps(told).encode())


def other(**fields: Any) -> bytes:
    """Return an index with other fields beside its columns."""
    return gzip.compress(json.dumps({**json.loads(gzip.decompress(encode("hq", DAY, [ROW]))), **fields}).encode())


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"<html>", id="a page"),
        pytest.param(encode("hq", DAY, [ROW])[:-9], id="cut short"),
        pytest.param(encode("hq", DAY, [ROW])[:30] + b"xx" + encode("hq", DAY, [ROW])[32:], id="a bit of it damaged"),
        pytest.param(gzip.compress(b"null"), id="no object"),
        pytest.param(gzip.compress(b"[" * 100_000), id="nested deep"),
        pytest.param(gzip.compress(b"\xff"), id="no text"),
        pytest.param(encode("branch", DAY, [ROW]), id="another source's"),
        pytest.param(encode("hq", date(2026, 3, 6), [ROW]), id="another day's"),
        pytest.param(other(schema="callvault/index/v2"), id="another version's"),
        pytest.param(other(columns=[]), id="no columns"),
        pytest.param(spoilt(sha256=None), id="a column missing"),
        pytest.param(spoilt(sha256=["0" * 64] * 2), id="a column longer than the others"),
        pytest.param(spoilt(sha256=[7]), id="a number for a text"),
        pytest.param(spoilt(rid=[None]), id="no rid"),
        pytest.param(spoilt(media_bytes=["10"]), id="a text for a number"),
        pytest.param(spoilt(media_bytes=[True]), id="a truth for a number"),
        pytest.param(spoilt(promised=["soon"]), id="no time"),
        pytest.param(spoilt(promised=["2033-03-05T12:00:00"]), id="a time without offset"),
        pytest.param(spoilt(direction=["sideways"]), id="no direction"),
        pytest.param(spoilt(lock_mode=["forever"]), id="no mode"),
    ],
)
def test_what_is_no_index_is_refused(body: bytes) -> None:
    """With a ValueError, whatever is wrong with it, so that the caller reads the sidecars."""
    with pytest.raises(ValueError):
        decode(body, "hq", DAY)


def test_an_index_that_would_fill_the_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """However little it is when compressed."""
    monkeypatch.setattr("storage.day_index._MAX_TEXT", 1000)
    with pytest.raises(ValueError, match="far too long"):
        decode(zlib.compress(b" " * 100_000, wbits=31), "hq", DAY)


def test_a_mark_is_of_size_and_second() -> None:
    """Listings of objects and of versions make the same one, also where one of them has no fractions of a second."""
    listed = ObjectInfo("k", 7, NOW)
    version = Version("k", "v1", 7, NOW.replace(microsecond=0), latest=True)
    assert Mark.of(listed) == Mark.of(version) == Mark(7, 1772712000)
    assert Mark.of(replace(listed, bytes=8)) != Mark.of(version)
