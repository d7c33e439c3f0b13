"""A listing is walked to its end once, whatever the vendor does with its pages."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

import pytest

from config.settings import VendorOptions
from storage.sidecar import CallFacts
from worker import paging
from worker.errors import BadAnswer, StopSource
from worker.model import Page, Recording, Unreadable, Window
from worker.paging import listed, spans
from worker.vendor import MediaStream, VendorInfo

NOON = datetime(2026, 3, 5, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
WINDOW = Window(NOON, NOON + 2 * HOUR)


def recording(name: str, minutes: float = 1) -> Recording:
    """Return a recording that started so many minutes after noon."""
    return Recording(name, CallFacts(started_at=NOON + timedelta(minutes=minutes)), {"id": name})


class Scripted:
    """A vendor whose pages are what a function says of span and cursor."""

    info: ClassVar[VendorInfo] = VendorInfo("acme", "Acme", VendorOptions, needs_timezone=False, max_window=None)

    def __init__(self, page: Callable[[Window, str | None], Page]) -> None:
        self.page = page
        self.asked: list[tuple[Window, str | None]] = []

    async def list_page(self, window: Window, cursor: str | None) -> Page:
        self.asked.append((window, cursor))
        return self.page(window, cursor)

    async def describe(self, recording: Recording) -> Recording:
        raise AssertionError

    async def open_media(self, recording: Recording) -> MediaStream:
        raise AssertionError


class Short(Scripted):
    """A vendor that lists three quarters of an hour at a time."""

    info: ClassVar[VendorInfo] = VendorInfo(
        "acme", "Acme", VendorOptions, needs_timezone=False, max_window=timedelta(minutes=45)
    )


async def ids(vendor: Any, window: Window = WINDOW) -> list[str]:
    """Return the ids listed, in order."""
    return [r.id for page in [p async for p in listed(vendor, window)] for r in page.recordings]


async def test_pages_follow_their_cursors() -> None:
    """Each page is asked for with the cursor of the one before; the last one ends the walk."""
    pages = {None: Page((recording("a"),), "2"), "2": Page((), "3"), "3": Page((recording("b"),))}
    vendor = Scripted(lambda _, cursor: pages[cursor])
    assert await ids(vendor) == ["a", "b"]
    assert [cursor for _, cursor in vendor.asked] == [None, "2", "3"]


async def test_rows_outside_the_window_are_dropped() -> None:
    """The start belongs to the window, the end does not."""
    rows = (recording("before", -0.01), recording("first", 0), recording("last", 119.99), recording("after", 120))
    assert await ids(Scripted(lambda *_: Page(rows))) == ["first", "last"]


async def test_a_row_that_comes_twice_is_listed_once() -> None:
    """Pages shift when recordings arrive; the repeated row keeps its first form, and the walk goes on."""
    pages = {
        None: Page((recording("a"), recording("b")), "2"),
        "2": Page((recording("b"), recording("b")), "3"),
        "3": Page((recording("a"), recording("c"))),
    }
    assert await ids(Scripted(lambda _, cursor: pages[cursor])) == ["a", "b", "c"]


async def test_unreadable_rows_are_handed_on_once() -> None:
    """What could not be understood is reported, also without an id; another fault without an id is another row."""
    rows = tuple(Unreadable(i, d, {}) for i, d in (("a", "x"), (None, "x"), (None, "x"), (None, "y"), ("a", "x")))
    vendor: Any = Scripted(lambda *_: Page((recording("a"),), None, rows))
    (page,) = [p async for p in listed(vendor, WINDOW)]
    assert page.recordings == (recording("a"),)
    assert [(u.id, u.detail) for u in page.unreadable] == [("a", "x"), (None, "x"), (None, "y")]
    assert page.next is None


@pytest.mark.parametrize(("total", "missing"), [(4, True), (3, False), (2, False), (None, False)])
async def test_a_listing_shorter_than_announced_is_told(total: int | None, missing: bool) -> None:
    """Recordings that were announced and did not come are reported; those that came count once, in or out of time."""
    pages = {
        None: Page((recording("a"), recording("b"))),
        "2": Page((recording("b"), recording("early", -5)), total=total),
    }
    pages[None] = Page(pages[None].recordings, "2", total=total)
    *_, last = [page async for page in listed(Scripted(lambda _, cursor: pages[cursor]), WINDOW)]
    told = [(row.id, row.detail, row.record) for row in last.unreadable]
    said = "the list announces 4 recordings and gave 3 different ones"
    assert told == ([(None, said, {"total": 4, "rows": 3})] if missing else [])


async def test_a_repeated_cursor_is_an_error() -> None:
    """A next page that was read before would go round for ever; what was listed until then stands."""
    pages = {None: Page((recording("a"),), "2"), "2": Page((recording("b"),), "3"), "3": Page((recording("c"),), "2")}
    vendor: Any = Scripted(lambda _, cursor: pages[cursor])
    walk = listed(vendor, WINDOW)
    assert [(await anext(walk)).recordings[0].id for _ in range(3)] == ["a", "b", "c"]
    with pytest.raises(BadAnswer, match=r"Acme: the listing from 2026-03-05 12:00.* points back"):
        await anext(walk)


async def test_pages_that_hold_nothing_new_are_an_error() -> None:
    """An offset that the phone system ignores is found out after three such pages in a row, not after two."""
    same = (recording("a"), recording("b"))
    endless = Scripted(lambda _, cursor: Page(same, str(int(cursor or 0) + 1)))
    with pytest.raises(BadAnswer, match="3 pages in a row held nothing new"):
        await ids(endless)
    assert len(endless.asked) == 4

    def shifting(_: Window, cursor: str | None) -> Page:
        number = int(cursor or 0)
        return Page(
            (*same, recording(f"c{number}")) if number % 3 == 0 else same, str(number + 1) if number < 7 else None
        )

    assert await ids(Scripted(shifting)) == ["a", "b", "c0", "c3", "c6"]


async def test_rows_outside_the_window_are_news_too() -> None:
    """Many pages before the window starts are no circle, nor are empty ones."""

    def page(_: Window, cursor: str | None) -> Page:
        number = int(cursor or 0)
        rows = () if number < 5 else (recording(f"r{number}", -number if number < 10 else number),)
        return Page(rows, str(number + 1) if number < 12 else None)

    assert await ids(Scripted(page)) == ["r10", "r11", "r12"]


async def test_a_listing_without_end_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """New rows for ever are an error as well, after a number of pages that no real listing has."""
    monkeypatch.setattr(paging, "MAX_PAGES", 5)
    endless = Scripted(lambda _, cursor: Page((recording(f"r{cursor}"),), str(int(cursor or 0) + 1)))
    with pytest.raises(BadAnswer, match="more than 5 pages"):
        await ids(endless)
    assert len(endless.asked) == 5


async def test_a_long_window_is_walked_in_spans() -> None:
    """The oldest first, none longer than the vendor takes; a row that two spans show is listed in its own."""
    rows = (recording("a", 10), recording("b", 50), recording("c", 119))
    vendor = Short(lambda *_: Page(rows))
    assert await ids(vendor) == ["a", "b", "c"]
    assert [(w.start - NOON, w.end - NOON) for w, _ in vendor.asked] == [
        (timedelta(minutes=0), timedelta(minutes=45)),
        (timedelta(minutes=45), timedelta(minutes=90)),
        (timedelta(minutes=90), timedelta(minutes=120)),
    ]


def test_an_empty_window_has_no_spans() -> None:
    """Nothing is asked for where there is nothing to ask."""
    assert list(spans(Window(NOON, NOON), HOUR)) == []
    assert list(spans(WINDOW, None)) == [WINDOW]


async def test_errors_of_the_vendor_pass_through() -> None:
    """What a connector raises is not this module's business."""

    def refuse(*_: Any) -> Page:
        raise StopSource("wrong password")

    with pytest.raises(StopSource):
        await ids(Scripted(refuse))
