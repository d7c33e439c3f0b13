"""Object keys: whatever an id is made of, one key of the layout, and never two ids under one."""

import hashlib
import re
from datetime import UTC, date, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.keys import EXTENSIONS, NO_DATE, Keys, ParsedKey, rid, utc_date

DAY = date(2026, 3, 5)
SOURCES = st.from_regex(r"[a-z0-9-]{1,40}", fullmatch=True)
KINDS = st.sampled_from(["recordings", "gaps", "quarantine"])


@pytest.mark.parametrize(
    ("told", "written"),
    [
        ("20170901181806-1504261084.7-1001-1003-Internal.wav", "20170901181806-1504261084.7-1001-1003-Internal.wav"),
        ("a/b", "a~2Fb"),
        ("../../etc", "..~2F..~2Fetc"),
        (".", "~2E"),
        ("..", "~2E~2E"),
        ("...", "..."),
        ("a~b c", "a~7Eb~20c"),
        ("é\0\n", "~C3~A9~00~0A"),
        ("\ud800", "~ED~A0~80"),
        ("", ""),
    ],
)
def test_ids_are_written_with_safe_bytes(told: str, written: str) -> None:
    """Every byte outside the plain ones is written ~XX; dots alone are encoded too."""
    assert rid(told) == written


def test_long_ids_keep_their_head_and_a_hash() -> None:
    """From 181 characters on: the first 140, a tilde, 32 hex digits of the SHA-256 of the whole id."""
    assert rid("x" * 180) == "x" * 180
    digits = hashlib.sha256(b"x" * 181).hexdigest()[:32]
    assert rid("x" * 181) == "x" * 140 + "~" + digits


def test_an_encoded_byte_is_never_split() -> None:
    """The head ends before a ~XX that would not fit in it."""
    told = "x" * 139 + "/" * 50
    assert rid(told).startswith("x" * 139 + "~" + hashlib.sha256(told.encode()).hexdigest()[:32])


@given(st.text(alphabet=st.characters(), max_size=400))
def test_any_id_becomes_a_safe_segment(told: str) -> None:
    """At most 180 characters of the plain ones and the tilde, for ids of any making, half surrogates included."""
    assert re.fullmatch(r"[A-Za-z0-9._~-]{0,180}", rid(told))
    assert rid(told) not in (".", "..")


@given(st.text(max_size=400), st.text(max_size=400))
def test_different_ids_have_different_keys(one: str, other: str) -> None:
    """No two ids share a name."""
    assert (rid(one) == rid(other)) is (one == other)


def test_dates_are_utc() -> None:
    """The partition is the UTC date of the start; an unreadable start has a partition of its own."""
    assert utc_date(datetime(2026, 3, 6, 0, 30, tzinfo=timezone(timedelta(hours=1)))) == DAY
    assert utc_date(datetime(2026, 3, 5, 23, 59, tzinfo=UTC)) == DAY
    assert utc_date(None) == NO_DATE


def test_the_layout() -> None:
    """The four places and the probe, under the prefix."""
    keys = Keys("voice/")
    assert keys.media("hq", DAY, "r", "wav") == "voice/v1/recordings/source=hq/date=2026-03-05/r.wav"
    assert keys.sidecar("hq", DAY, "r") == "voice/v1/recordings/source=hq/date=2026-03-05/r.json"
    assert keys.gap("hq", DAY, "r") == "voice/v1/gaps/source=hq/date=2026-03-05/r.json"
    assert keys.quarantine("hq", DAY, "r", 2, "wav") == "voice/v1/quarantine/source=hq/date=2026-03-05/r.2.wav"
    assert keys.probe("x") == "voice/v1/probe/x"
    assert keys.days("gaps", "hq") == "voice/v1/gaps/source=hq/"
    assert Keys().partition("gaps", "hq", DAY) == "v1/gaps/source=hq/date=2026-03-05/"


@given(
    st.sampled_from(["", "voice/", "v1/recordings/"]),
    KINDS,
    SOURCES,
    st.dates(min_value=date(1000, 1, 1)),
    st.text(min_size=1, max_size=300),
    st.sampled_from([*EXTENSIONS, "json"]),
)
def test_keys_can_be_read_back(prefix: str, kind: str, source: str, day: date, told: str, ext: str) -> None:
    """What was put into a key comes out of it again, and a key stays within S3's 1,024 bytes."""
    key = f"{Keys(prefix).partition(kind, source, day)}{rid(told)}.{ext}"
    assert Keys(prefix).parse(key) == ParsedKey(kind, source, day, rid(told), ext)
    assert len(key.encode()) < 400


@pytest.mark.parametrize(
    "key",
    [
        "v1/recordings/source=hq/date=2026-03-05/r.wav",  # not below the prefix
        "voice/v1/recordings/source=hq/date=2026-02-30/r.wav",
        "voice/v1/recordings/source=HQ/date=2026-03-05/r.wav",
        "voice/v1/recordings/source=hq/date=2026-03-05/a/b.wav",
        "voice/v1/recordings/source=hq/date=2026-03-05/r.wav\n",
        "voice/v1/probe/x",
        "voice/v2/recordings/source=hq/date=2026-03-05/r.wav",
        "voice/",
    ],
)
def test_what_is_not_of_the_layout_is_nobodys(key: str) -> None:
    """Other objects in the bucket are recognised as none of ours."""
    assert Keys("voice/").parse(key) is None


def test_evidence_of_the_longest_rid_is_ours_too() -> None:
    """Its number comes on top of the 180 characters; nothing else is that long."""
    longest = "a" * 180
    assert rid(longest) == longest
    for number in (1, 999_999_999):
        key = Keys().quarantine("hq", DAY, longest, number, "wav")
        assert Keys().parse(key) == ParsedKey("quarantine", "hq", DAY, f"{longest}.{number}", "wav")
        assert Keys().parse(key.replace("quarantine", "recordings")) is None
