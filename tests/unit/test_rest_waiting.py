"""How long a source asks us to wait, in each dialect, and never longer than an hour."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.rest.waiting import MAX_WAIT, retry_after

NOW = datetime(2026, 3, 5, 12, tzinfo=UTC)
SOON = NOW + timedelta(seconds=90)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, None),
        ({"Retry-After": "30"}, 30),
        ({"Retry-After": " 1.5 "}, 1.5),
        ({"Retry-After": "0"}, 0),
        ({"Retry-After": "-5"}, 0),
        ({"Retry-After": "999999999"}, MAX_WAIT),
        ({"Retry-After": "inf"}, MAX_WAIT),
        ({"Retry-After": "nan"}, None),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": format_datetime(SOON, usegmt=True)}, 90),
        ({"Retry-After": "Thu, 05 Mar 2026 13:01:30 +0100"}, 90),
        ({"Retry-After": "Thu, 05 Mar 2026 12:01:30"}, 90),
        ({"Retry-After": format_datetime(NOW - timedelta(days=1), usegmt=True)}, 0),
        ({"Retry-After": format_datetime(NOW + timedelta(days=400), usegmt=True)}, MAX_WAIT),
        ({"Retry-After": "Thu, 35 Mar 2026 12:01:30 GMT"}, None),
        ({"X-RateLimit-Reset": str(int(SOON.timestamp()))}, 90),
        ({"X-RateLimit-Reset": str(int(SOON.timestamp() * 1000))}, 90),
        ({"X-RateLimit-Reset": "tomorrow"}, None),
        ({"Retry-After": "soon", "X-RateLimit-Reset": str(int(SOON.timestamp()))}, 90),
        ({"Retry-After": "30", "X-RateLimit-Reset": str(int(SOON.timestamp()))}, 30),
    ],
)
def test_the_dialects(headers: dict[str, str], expected: float | None) -> None:
    """Seconds, an HTTP date with any zone, an epoch in seconds or milliseconds; nonsense counts as nothing."""
    assert retry_after(headers, NOW) == expected


@given(st.text(max_size=60) | st.from_regex(r"\A\w{3}, \d{1,2} \w{3} \d{1,6} \d\d:\d\d:\d\d [+-]?\d{1,9}\Z"))
def test_no_header_makes_trouble(told: str) -> None:
    """Whatever a header holds, the answer is a bounded number of seconds or None."""
    for name in ("Retry-After", "X-RateLimit-Reset"):
        seconds = retry_after({name: told}, NOW)
        assert seconds is None or 0 <= seconds <= MAX_WAIT
