"""What each value of the configuration file may be: pure parsers that raise `Wrong` with what to write instead.

They take what the TOML reader gave and return what `config.settings` holds. What needs the file system or the
environment (secrets, certificates) is `config.secret`.
"""

import math
import re
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from urllib.parse import SplitResult, urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from cronsim import CronSim, CronSimError

from config.mistakes import Wrong, meant, quoted, shown
from config.sentinel import FORM, is_sentinel, read_sentinels

_SOURCE_NAME = re.compile(r"[a-z0-9-]{1,40}")
_DURATION = re.compile(r"([0-9]{1,9})([smhd])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_LONGEST = timedelta(days=3650)
# https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
# the characters AWS calls safe, and `=` as in `team=voice/`
_PREFIX = re.compile(r"[A-Za-z0-9!_.*'()=/-]*")
_LONGEST_PREFIX = 512  # a key has 1,024 bytes, of which the layout needs up to 300
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{0,30}")
_FINGERPRINT = re.compile(r"[0-9a-f]{64}")
_CRON_SAMPLE = datetime(2026, 1, 1, tzinfo=UTC)

BROKER_SCHEMES = ("redis", "rediss", "sentinel", "amqp", "amqps")
STATE_SCHEMES = ("redis", "rediss", "unix", "sentinel")


def text(value: object) -> str:
    """Return a text that is not empty."""
    if not isinstance(value, str):
        raise Wrong(f"a text in quotes is expected, found {shown(value)}")
    if not value.strip():
        raise Wrong("is empty; write a value or leave the key out")
    return value


def at_least(least: int) -> Callable[[object], int]:
    """Return a parser of whole numbers from `least` on."""

    def parse(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise Wrong(f"a whole number, {least} or more, is expected, found {shown(value)}")
        return value

    return parse


def rate(value: object) -> float:
    """Return a number above 0, of requests per second."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 10**6 or math.isnan(value):
        raise Wrong(f"a number above 0 is expected, found {shown(value)}; leave the key out for no limit")
    return float(value)


def duration(value: object) -> timedelta:
    """Return a span of time written as a whole number and one of s m h d."""
    match = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise Wrong(f'{shown(value)} is not a duration; write a whole number and one of s m h d, e.g. "48h"')
    span = timedelta(**{_UNITS[match[2]]: int(match[1])})
    if span > _LONGEST:
        raise Wrong(f"{shown(value)} is longer than ten years; write {_LONGEST.days}d or less")
    return span


def moment(value: object) -> datetime:
    """Return an instant, in UTC, from a TOML date-time with an offset."""
    if isinstance(value, str):
        raise Wrong(f"{shown(value)} is a text; write the time without quotes, e.g. 2026-01-01T00:00:00Z")
    if not isinstance(value, datetime):
        hint = f"{value.isoformat()}T00:00:00Z" if isinstance(value, date) else "2026-01-01T00:00:00Z"
        raise Wrong(f"a date and time with an offset is expected, found {shown(value)}; write e.g. {hint}")
    if value.tzinfo is None:
        raise Wrong(f"{value.isoformat()} has no offset; write {value.isoformat()}Z for UTC, or e.g. +01:00")
    if not 1970 <= value.year <= 2100:
        raise Wrong(f"{value.isoformat()} is not between 1970 and 2100")
    return value.astimezone(UTC)


def zone(value: object) -> ZoneInfo:
    """Return an IANA time zone."""
    name = text(value)
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):  # a folder of the zone database is an OSError
        raise Wrong(
            f'{quoted(name)} is not an IANA time zone such as "Europe/Rome"{meant(name, sorted(available_timezones()))}'
        ) from None


def schedule(value: object) -> str:
    """Return a cron line of five fields that comes due at some time."""
    line = text(value)
    sample = 'write five fields: minute, hour, day of month, month, day of week, e.g. "*/10 * * * *"'
    if len(line.split()) != 5:
        raise Wrong(f"{shown(line)} is not a cron line; {sample}")
    try:
        due = next(CronSim(line, _CRON_SAMPLE), None)
    except CronSimError as error:
        reason = str(error)
    else:
        reason = "" if due else "it never comes due"
    if reason:
        raise Wrong(f"{shown(line)} is not a cron line ({reason[0].lower()}{reason[1:]}); {sample}")
    return line


def source_name(value: object) -> str:
    """Return a name that may stand in object keys and metrics."""
    name = text(value)
    if not _SOURCE_NAME.fullmatch(name):
        raise Wrong(f'{shown(name)} is not a name; write 1 to 40 of a-z, 0-9 and "-", e.g. "hq"')
    return name


def bucket(value: object) -> str:
    """Return a bucket's name, by the rules that hold for new ones."""
    name = text(value)
    if not _BUCKET.fullmatch(name) or ".." in name:
        raise Wrong(
            f'{shown(name)} is not a bucket name; write 3 to 63 of a-z, 0-9, "." and "-", without s3:// '
            "and without a folder (that is the key prefix)"
        )
    return name


def prefix(value: object) -> str:
    """Return what all keys begin with: empty, or a path that ends in `/`."""
    if value == "":
        return ""
    told = text(value)
    if not told.endswith("/"):
        raise Wrong(f'must end in "/"; write {quoted(told + "/")}')
    if told.startswith("/"):
        raise Wrong(f'must not begin with "/"; write {quoted(told.lstrip("/"))}')
    if not _PREFIX.fullmatch(told) or len(told) > _LONGEST_PREFIX:
        raise Wrong(f"{shown(told)} may hold a-z, A-Z, 0-9 and !_.*'()=-/ only, at most {_LONGEST_PREFIX} of them")
    if any(part in ("", ".", "..") for part in told[:-1].split("/")):
        raise Wrong(f'{shown(told)} has an empty, "." or ".." part, which tools that copy buckets take for folders')
    return told


def _split(told: str, sample: str) -> SplitResult:
    # Nothing of the address is shown before it is known to hold no credential.
    if not all(c.isprintable() and c not in ' \\"<>' for c in told):
        raise Wrong(f'has blanks or characters that no address holds; write e.g. "{sample}"')
    try:
        parts = urlsplit(told)
        _ = parts.port
    except ValueError:
        raise Wrong(f'is not an address (host or port cannot be read); write e.g. "{sample}"') from None
    return parts


def web_address(value: object) -> str:
    """Return an http or https address without trailing slash, query, fragment or credentials."""
    told, sample = text(value), "https://pbx.example.net:8088"
    parts = _split(told, sample)
    if "@" in (parts.netloc or told):
        raise Wrong("a user name or password has no place in it; write them as keys of their own")
    if "?" in told or "#" in told:
        raise Wrong(f'nothing may follow a "?" or "#"; write e.g. "{sample}"')
    if parts.scheme not in ("http", "https"):
        raise Wrong(f'{shown(told)} does not begin with https:// or http://; write e.g. "{sample}"')
    if not parts.hostname:
        raise Wrong(f'{shown(told)} names no host; write e.g. "{sample}"')
    return told.rstrip("/")


def queue_address(schemes: tuple[str, ...]) -> Callable[[str], str]:
    """Return a parser of broker addresses. They hold passwords: no more than the scheme is ever shown."""

    def parse(told: str) -> str:
        sample = "redis://127.0.0.1:6379/0"
        scheme, separator, rest = told.partition("://")
        scheme = scheme.lower()
        if not separator or not _SCHEME.fullmatch(scheme):
            raise Wrong(f'is not an address; write e.g. "{sample}"')
        if "cluster" in scheme:
            raise Wrong(
                f"{scheme}:// cannot be used: Celery changes several keys in one step, which a cluster keeps on "
                "different machines; write the address of a single Redis or Valkey"
            )
        if scheme.startswith("valkey"):
            raise Wrong(f"{scheme}:// is not a scheme; Valkey speaks Redis's protocol: write redis:// or rediss://")
        if scheme not in schemes:
            raise Wrong(f'{scheme}:// is not one of {", ".join(schemes)}; write e.g. "{sample}"')
        if is_sentinel(told):
            try:
                read_sentinels(told)
            except ValueError as error:
                raise Wrong(f'is no address of Sentinels: {error}; write e.g. "{FORM}"') from None
            return told
        first = _split(f"{scheme}://{rest}", sample)
        if scheme != "unix" and not first.hostname:
            raise Wrong(f'names no host; write e.g. "{sample}"')
        return told

    return parse


def fingerprint(value: object) -> str:
    """Return a certificate's SHA-256 as 64 lower-case hex digits; colons, as OpenSSL prints them, are dropped."""
    plain = text(value).replace(":", "").strip().lower()
    if not _FINGERPRINT.fullmatch(plain):
        raise Wrong(
            f"the SHA-256 of the certificate, 64 hex digits, is expected, found {len(plain)} characters; "
            "read it with: openssl x509 -in pbx.pem -noout -fingerprint -sha256"
        )
    return plain
