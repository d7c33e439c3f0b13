"""A phone system with a long past that lists by time: rows are made when they are asked for, so it holds nothing."""

from bisect import bisect_left
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, ClassVar

from storage.sidecar import CallFacts
from tests.support.bench import FakeOptions, FakeStream
from worker.model import Page, Recording, Window
from worker.vendor import VendorInfo

BODY = b"RIFF\x24\x00\x00\x00WAVEfmt " + bytes(28)


class Past:
    """Lists calls that started at `starts` (rising), newest first, a page of a hundred at a time, ten minutes more
    than asked for at both ends; `rows` counts what was sent. One that cannot be asked for a span lists everything.
    """

    info: ClassVar[VendorInfo] = VendorInfo(
        "fake", "Fake", FakeOptions, needs_timezone=False, max_window=timedelta(days=1)
    )
    blind: ClassVar[VendorInfo] = VendorInfo("fake", "Fake", FakeOptions, needs_timezone=False, max_window=None)
    page_size = 100
    wider = timedelta(minutes=10)

    def __init__(self, starts: Sequence[datetime]) -> None:
        self.starts = starts
        self.rows = 0
        self.requests = 0
        self.opened: list[int] = []
        self.fails: dict[int, Exception] = {}
        self.hidden: set[int] = set()

    async def list_page(self, window: Window, cursor: str | None) -> Page:
        self.requests += 1
        wide = window.widened(self.wider)
        first, after = bisect_left(self.starts, wide.start), bisect_left(self.starts, wide.end)
        if self.info.max_window is None:
            first, after = 0, len(self.starts)
        top = after if cursor is None else int(cursor)
        bottom = max(first, top - self.page_size)
        numbers = [number for number in range(top - 1, bottom - 1, -1) if number not in self.hidden]
        self.rows += len(numbers)
        return Page(tuple(map(self.recording, numbers)), str(bottom) if bottom > first else None)

    def recording(self, number: int) -> Recording:
        start = self.starts[number]
        call = CallFacts(started_at=start, ended_at=start + timedelta(seconds=10), from_="5550100", to="1001")
        return Recording(
            f"rec-{number:07d}", call, {"id": f"rec-{number:07d}", "start": start.isoformat(), "n": number}
        )

    async def describe(self, recording: Recording) -> Recording:
        return recording

    async def open_media(self, recording: Recording) -> Any:
        number = int(recording.id.removeprefix("rec-"))
        self.opened.append(number)
        if number in self.fails:
            raise self.fails[number]
        return FakeStream(BODY)
