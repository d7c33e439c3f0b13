"""Walking a vendor's listing to its end, once, whatever the vendor does with its pages.

A window longer than the vendor takes in one go is walked in spans, oldest first. Rows that started outside
and rows already seen are dropped; a listing that goes round in circles is an error, never an endless loop
and never a silent end. How a page is asked for is the connector's business (`worker.vendor`).
"""

from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import timedelta

from worker.errors import BadAnswer
from worker.model import Page, Recording, Unreadable, Window
from worker.vendor import Vendor

MAX_PAGES = 10_000
"""No listing of one span is longer: at 100 rows a page this is a million recordings."""

MAX_ROWS = 1_000_000
"""And has no more different rows: which were seen is remembered, as hashes."""

_STALE_PAGES = 3
"""Pages in a row without one new row, after which the listing goes in circles. One or two may happen when
recordings arrive while newest-first pages are walked, because rows then move to the next page."""


async def listed(vendor: Vendor, window: Window) -> AsyncIterator[Page]:
    """Yield what started in the window, page by page, each recording once; `next` of these pages is None.

    Raises what `list_page` raises, and BadAnswer for a repeated cursor, three pages in a row without a new
    row, or more than `MAX_PAGES` pages; pages yielded before that are good.
    """
    for span in spans(window, vendor.info.max_window):
        async for page in _walked(vendor, span):
            yield page


def spans(window: Window, longest: timedelta | None) -> Iterator[Window]:
    """Cut a window into spans no longer than `longest`, oldest first; an empty window has none."""
    start = window.start
    while start < window.end:
        end = window.end if longest is None else min(start + longest, window.end)
        yield Window(start, end)
        start = end


async def _walked(vendor: Vendor, span: Window) -> AsyncIterator[Page]:
    title = vendor.info.title
    cursor: str | None = None
    cursors: set[str] = set()
    seen: set[int] = set()
    stale = 0
    for _ in range(MAX_PAGES):
        page = await vendor.list_page(span, cursor)
        fresh = _unseen(page, seen)
        yield replace(fresh, recordings=tuple(r for r in fresh.recordings if r.started_at in span))
        if len(seen) > MAX_ROWS:
            raise BadAnswer(f"{title}: the listing from {span.start} to {span.end} has more than {MAX_ROWS} rows")
        if page.next is None:
            if page.total is not None and len(seen) < page.total:
                detail = f"the list announces {page.total} recordings and gave {len(seen)} different ones"
                yield Page((), None, (Unreadable(None, detail, {"total": page.total, "rows": len(seen)}),))
            return
        if page.next in cursors:
            raise BadAnswer(f"{title}: the listing from {span.start} to {span.end} points back to a page already read")
        cursor = page.next
        cursors.add(cursor)
        repeats = not page.again and (page.recordings or page.unreadable) and not (fresh.recordings or fresh.unreadable)
        stale = stale + 1 if repeats else 0
        if stale == _STALE_PAGES:
            raise BadAnswer(
                f"{title}: the listing from {span.start} to {span.end} repeats itself:"
                f" {_STALE_PAGES} pages in a row held nothing new"
            )
    raise BadAnswer(f"{title}: the listing from {span.start} to {span.end} has more than {MAX_PAGES} pages")


def _unseen(page: Page, seen: set[int]) -> Page:
    """Return the page with what was not seen before, and remember it.

    Remembered are hashes, so that the length of a vendor's ids plays no part. Two of a million different ids share
    one with a chance of three in a hundred million; as Python salts them, another process then lists both.
    """

    def first(row: Recording | Unreadable) -> bool:
        key = hash(row.id if isinstance(row, Recording) else (row.id, row.detail))
        new = key not in seen
        seen.add(key)
        return new

    return Page(tuple(r for r in page.recordings if first(r)), None, tuple(u for u in page.unreadable if first(u)))
