"""The values on the way of a recording, and their form in a queue."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from storage.sidecar import CallFacts, Direction
from worker.model import ClaimedHash, Page, Readiness, Recording, Unreadable, Window

NOON = datetime(2026, 3, 5, 12, tzinfo=UTC)

FULL = Recording(
    id="a/b\u00fc",
    call=CallFacts(
        started_at=NOON.replace(microsecond=1000),
        ended_at=NOON + timedelta(seconds=12),
        duration_seconds=12.0,
        direction=Direction.INTERNAL,
        from_="1001",
        to="1003",
        agent="Ada Example",
        queue="support",
        call_id="1772712000.1",
    ),
    record={"id": "a/b\u00fc", "nested": {"list": [1, None, 2.5]}},
    readiness=Readiness.NOT_YET,
    vendor_state="saving",
    media="/media/1",
    expected_bytes=195244,
    claimed_hash=ClaimedHash("SHA-256", "abc"),
    notes=("a note",),
)


@pytest.mark.parametrize("recording", [FULL, Recording("b", CallFacts(started_at=NOON), {})])
def test_a_recording_survives_json(recording: Recording) -> None:
    """Everything of it, and the form is plain JSON."""
    assert Recording.from_json(json.loads(json.dumps(recording.to_json()))) == recording


def test_notes_are_added() -> None:
    """Further warnings come behind those that are there; the rest stays."""
    more = FULL.noting("second", "third")
    assert more.notes == ("a note", "second", "third")
    assert (more.id, more.started_at) == (FULL.id, FULL.call.started_at)


def test_a_recording_without_a_start_is_a_bug() -> None:
    """Connectors report such rows as unreadable; asking one for its start fails at once."""
    with pytest.raises(AssertionError):
        _ = Recording("a", CallFacts(started_at=None), {}).started_at


def test_a_window_is_half_open_and_can_be_widened() -> None:
    """Its start is inside, its end is not."""
    window = Window(NOON, NOON + timedelta(hours=1))
    assert NOON in window
    assert window.end not in window
    assert NOON - timedelta(microseconds=1) not in window
    assert window.widened(timedelta(hours=1)) == Window(NOON - timedelta(hours=1), NOON + timedelta(hours=2))


def test_pages_are_last_and_clean_by_default() -> None:
    """A page without a cursor is the last one, and nothing is unreadable unless said so."""
    assert Page(()) == Page((), None, ())
    assert Unreadable(None, "why", {}).id is None
