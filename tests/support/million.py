"""An S3 over HTTP with as many recordings as wished, none of which exists: listings and indexes are made up on demand.

For `tests.bench.plan_million`: what a plan reads is there, all else is refused.
"""

import asyncio
import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from urllib.parse import parse_qs, quote, unquote, urlsplit

from config.retention import LockMode
from storage.day_index import Mark, Row, encode
from storage.entry import Entry
from storage.holds import Hold, Scope, Step
from storage.keys import Keys
from storage.sidecar import CallFacts, Direction, canonical

BUCKET = "calls"
FIRST = date(2021, 1, 1)
_KEYS = Keys()
_QUEUES = ("trading-eu", "trading-us", "sales", "support", None)
_NOON = timedelta(hours=12)


@dataclass(frozen=True, slots=True)
class Million:
    """So many recordings a day of each source, from `FIRST` on."""

    sources: tuple[str, ...]
    days: int
    a_day: int

    @property
    def recordings(self) -> int:
        return len(self.sources) * self.days * self.a_day

    def dates(self) -> list[date]:
        return [FIRST + timedelta(days=number) for number in range(self.days)]

    def rows(self, source: str, day: date) -> Iterator[Row]:
        """Iterate over the recordings of a day, in the order of their keys."""
        dice = random.Random(f"{source} {day}")
        begins = datetime.combine(day, datetime.min.time(), UTC)
        for number in range(self.a_day):
            start = begins + timedelta(seconds=number * 86400 // self.a_day)
            call = CallFacts(
                started_at=start,
                ended_at=start + timedelta(seconds=dice.randrange(5, 900)),
                duration_seconds=60.0,
                direction=dice.choice((Direction.INBOUND, Direction.OUTBOUND)),
                from_=f"+4420{dice.randrange(10**8):08}",
                to=str(dice.randrange(1000, 1100)),
                agent=f"agent-{dice.randrange(200)}",
                queue=dice.choice(_QUEUES),
                call_id=None,
            )
            name = rid(day, number)
            assert call.ended_at
            entry = Entry(
                source, day, name, name, call, _KEYS.media(source, day, name, "wav"), media_bytes(number),
                f"{dice.getrandbits(256):064x}", start + _NOON, promised(call.ended_at), None,
                LockMode.GOVERNANCE, None,
            )  # fmt: skip
            yield Row(Mark(sidecar_bytes(number), int((begins + _NOON).timestamp())), entry)


def promised(ended: datetime) -> datetime:
    """Seven years, as the policy of then had it."""
    month_end = ended.day if (ended.month, ended.day) != (2, 29) else 28
    return ended.replace(year=ended.year + 7, day=month_end)


def rid(day: date, number: int) -> str:
    """Return what a recording is called."""
    return f"{day:%Y%m%d}{number:06}-1609459200.{number}"


def media_bytes(number: int) -> int:
    """Return how large its media are."""
    return 50_000 + number % 977


def sidecar_bytes(number: int) -> int:
    """Return how large its sidecar is."""
    return 1_400 + number % 97


def matter() -> bytes:
    """Return a matter over a queue of one source."""
    scope = Scope(source="source-0", queue="sales")
    placed = Step(at=datetime(2026, 1, 1, tzinfo=UTC), by="counsel", reason="dispute")
    return canonical(Hold(name="acme", scope=scope, placed=placed))


class Server:
    """Answers GET, on as many connections as are made."""

    def __init__(self, million: Million, indexes: Path) -> None:
        self._million = million
        self._indexes = indexes
        self.answered = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one connection until it ends."""
        while head := await _head(reader):
            target = head.partition(b"\r\n")[0].split(b" ")[1].decode()
            status, body = self._answer(target)
            self.answered += 1
            told = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nContent-Type: application/xml\r\n\r\n"
            writer.write(told.encode() + body)
            await writer.drain()
        writer.close()

    def _answer(self, target: str) -> tuple[str, bytes]:
        parts = urlsplit(target)
        key = unquote(parts.path).removeprefix(f"/{BUCKET}").lstrip("/")
        if not key:
            asked = {name: values[0] for name, values in parse_qs(parts.query).items()}
            return "200 OK", self._listing(asked)
        if key == _KEYS.hold("acme"):
            return "200 OK", matter()
        path = self._indexes / key.replace("/", "_")
        return ("200 OK", path.read_bytes()) if path.exists() else ("404 Not Found", b"")

    def _listing(self, asked: dict[str, str]) -> bytes:
        prefix, after = asked.get("prefix", ""), asked.get("continuation-token") or asked.get("start-after", "")
        most = int(asked.get("max-keys", "1000"))
        rows = [row for row in self._folders(prefix) if row[0] > after] if "delimiter" in asked else self._keys(prefix)
        rows = [row for row in rows if row[0] > after] if after else rows
        more, rows = len(rows) > most, rows[:most]
        token = f"<NextContinuationToken>{rows[-1][0]}</NextContinuationToken>" if more else ""
        return (
            '<?xml version="1.0" encoding="UTF-8"?>\n<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
            f"<Name>{BUCKET}</Name><EncodingType>url</EncodingType><IsTruncated>{str(more).lower()}</IsTruncated>{token}"
            f"{''.join(xml for _, xml in rows)}</ListBucketResult>"
        ).encode()

    def _folders(self, prefix: str) -> list[tuple[str, str]]:
        if prefix == _KEYS.sources("recordings"):
            found = [_KEYS.days("recordings", source) for source in self._million.sources]
        else:
            source = prefix.rstrip("/").rpartition("=")[2]
            found = [_KEYS.partition("recordings", source, day) for day in self._million.dates()]
        return [(row, f"<CommonPrefixes><Prefix>{quote(row)}</Prefix></CommonPrefixes>") for row in found]

    @lru_cache(maxsize=64)  # noqa: B019 - there is one server
    def _keys(self, prefix: str) -> list[tuple[str, str]]:
        if prefix == _KEYS.hold(""):
            return [(_KEYS.hold("acme"), _object(_KEYS.hold("acme"), len(matter()), "2026-01-01"))]
        day = date.fromisoformat(prefix.rstrip("/").rpartition("=")[2])
        found = []
        for number in range(self._million.a_day):
            base = f"{prefix}{rid(day, number)}"
            for ext, size in (("json", sidecar_bytes(number)), ("wav", media_bytes(number))):
                found.append((f"{base}.{ext}", _object(f"{base}.{ext}", size, str(day))))
        return found


def _object(key: str, size: int, day: str) -> str:
    return (
        f"<Contents><Key>{key.replace('=', '%3D')}</Key><LastModified>{day}T12:00:00.000Z</LastModified>"
        f"<ETag>&quot;9b2cf535f27731c974343645a3985328&quot;</ETag><Size>{size}</Size><StorageClass>STANDARD</StorageClass>"
        "</Contents>"
    )


async def _head(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, ConnectionError):
        return b""


def write_indexes(million: Million, source: str, folder: Path) -> None:
    """Write the index of every day of a source, as an audit would have."""
    for day in million.dates():
        body = encode(source, day, million.rows(source, day))
        (folder / _KEYS.index(source, day).replace("/", "_")).write_bytes(body)
