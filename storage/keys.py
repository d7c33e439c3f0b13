"""Object keys, layout v1: how a recording is called in the bucket. Pure functions, no I/O.

An id is whatever a phone system made up, so nothing of it reaches a key unencoded; `rid` is injective for
short ids and carries half a SHA-256 for long ones, and for those that would read like the short form of a long
one. Reading keys back is `parse`.
"""

import hashlib
import re
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import lru_cache
from itertools import accumulate

_PLAIN = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-")
_MAX_RID = 180
_MAX_NUMBER = len(".999999999")  # of evidence, after the rid
_HEAD = 140
_HASH_DIGITS = 32
_SHORTENED = re.compile(r".{138,140}~[0-9a-f]{32}")  # a head is up to two short of 140, so as not to split a `~XX`

EXTENSIONS = ("wav", "mp3", "ogg", "opus", "flac", "m4a", "webm", "gsm", "bin")

NO_DATE = date(1970, 1, 1)
"""The partition of what has no readable start: a gap record must live somewhere, and always in the same place."""

_KEY = re.compile(
    r"v1/(?P<kind>recordings|gaps|quarantine|destroyed|erasures)/source=(?P<source>[a-z0-9-]{1,40})/date=(?P<date>\d{4}-\d\d-\d\d)"
    r"/(?P<rid>[A-Za-z0-9._~-]{1,190})\.(?P<ext>[a-z0-9]{2,4})"
)


def rid(recording_id: str) -> str:
    """Return the vendor's id as it is written in keys: at most 180 characters of `A-Za-z0-9._-~`."""
    return _known(recording_id) if len(recording_id) <= _MAX_RID else _rid(recording_id)


def _rid(recording_id: str) -> str:
    if recording_id in (".", ".."):
        return "".join(f"~{b:02X}" for b in recording_id.encode())
    raw = recording_id.encode("utf-8", "surrogatepass")
    pieces = [chr(b) if b in _PLAIN else f"~{b:02X}" for b in raw[: _MAX_RID + 1]]  # more is too long in any case
    whole = "".join(pieces)
    # `~20` and 30 digits more may be a blank and 30 letters, or a hash: a phone system must not get to choose
    if len(whole) <= _MAX_RID and not _SHORTENED.fullmatch(whole):
        return whole
    ends = accumulate(map(len, pieces))
    head = "".join(piece for piece, end in zip(pieces, ends, strict=True) if end <= _HEAD)  # a `~XX` is never split
    return f"{head}~{hashlib.sha256(raw).hexdigest()[:_HASH_DIGITS]}"


_known = lru_cache(maxsize=1024)(_rid)  # a recording is called by it half a dozen times; only short ids are kept


def utc_date(started_at: datetime | None) -> date:
    """Return the UTC date of a call's start; `NO_DATE` where the start could not be read."""
    return started_at.astimezone(UTC).date() if started_at else NO_DATE


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of one archive, under its prefix."""

    prefix: str = ""

    def partition(self, kind: str, source: str, day: date) -> str:
        """Return the prefix of one day, ending in `/`; `kind` is one of those that `parse` knows."""
        return f"{self.prefix}v1/{kind}/source={source}/date={day.isoformat()}/"

    def sources(self, kind: str) -> str:
        """Return the prefix that all sources share, ending in `/`."""
        return f"{self.prefix}v1/{kind}/"

    def days(self, kind: str, source: str) -> str:
        """Return the prefix that all days of a source share, ending in `/`."""
        return f"{self.prefix}v1/{kind}/source={source}/"

    def media(self, source: str, day: date, rid_: str, ext: str) -> str:
        """Return the key of the audio."""
        return f"{self.partition('recordings', source, day)}{rid_}.{ext}"

    def sidecar(self, source: str, day: date, rid_: str) -> str:
        """Return the key of the sidecar, whose existence means that the recording is held."""
        return f"{self.partition('recordings', source, day)}{rid_}.json"

    def gap(self, source: str, day: date, rid_: str) -> str:
        """Return the key of the gap record."""
        return f"{self.partition('gaps', source, day)}{rid_}.json"

    def quarantine(self, source: str, day: date, rid_: str, number: int, ext: str) -> str:
        """Return the key of bytes that failed verification; `number` counts from 1."""
        return f"{self.partition('quarantine', source, day)}{rid_}.{number}.{ext}"

    def hold(self, name: str) -> str:
        """Return the key of a matter; without a name, the prefix of all."""
        return f"{self.prefix}v1/holds/{name}" + (".json" if name else "")

    def swept(self, name: str) -> str:
        """Return the key of how far a matter has been carried through the archive: derived, made again when gone."""
        return f"{self.prefix}v1/index/holds/{name}.json"

    def certificate(self, day: date, id_: str) -> str:
        """Return the key of the certificate of one batch of deletions."""
        return f"{self.certificates()}date={day.isoformat()}/{id_}.json"

    def certificates(self) -> str:
        """Return the prefix of all certificates, ending in `/`."""
        return f"{self.prefix}v1/certificates/"

    def destroyed(self, source: str, day: date, rid_: str) -> str:
        """Return the key of the note that a recording was destroyed and is not to be archived again."""
        return f"{self.partition('destroyed', source, day)}{rid_}.json"

    def erasure(self, source: str, day: date, rid_: str) -> str:
        """Return the key of a request to erase a recording."""
        return f"{self.partition('erasures', source, day)}{rid_}.json"

    def index(self, source: str, day: date) -> str:
        """Return the key of the index of one day, which is derived from its sidecars and disposable."""
        return f"{self.days('index', source)}date={day.isoformat()}.json.gz"

    def probe(self, name: str) -> str:
        """Return the key of a probe object, which is removed after use."""
        return f"{self.prefix}v1/probe/{name}"

    def parse(self, key: str) -> "ParsedKey | None":
        """Read a key back; None for what is not of this layout under this prefix."""
        if not key.startswith(self.prefix):
            return None
        found = _KEY.fullmatch(key[len(self.prefix) :])
        if not found:
            return None
        try:
            day = date.fromisoformat(found["date"])
        except ValueError:
            return None
        if len(found["rid"]) > _MAX_RID + (_MAX_NUMBER if found["kind"] == "quarantine" else 0):
            return None
        return ParsedKey(found["kind"], found["source"], day, found["rid"], found["ext"])


@dataclass(frozen=True, slots=True)
class ParsedKey:
    """A key of layout v1, taken apart. For quarantine, `rid` still ends in its number."""

    kind: str
    source: str
    day: date
    rid: str
    ext: str
