"""What a connector is, in words a new one can be written from. One file each in `worker/vendors/`.

A connector knows one vendor's API and nothing of buckets, queues or other vendors. Everything about HTTP
(caps, pace, time-outs, redirects, TLS, redaction, size ceilings, the table of errors) is `worker.rest`.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from typing import ClassVar, Protocol

from config.settings import Source, VendorOptions
from worker.model import Page, Recording, Window
from worker.rest.client import RestClient


@dataclass(frozen=True, slots=True)
class VendorInfo:
    """What callvault must know of a vendor before it speaks to it."""

    name: str
    """As in the configuration, and the name of the file."""
    title: str
    """For people."""
    options: type[VendorOptions]
    """The vendor's own configuration keys."""
    needs_timezone: bool
    """Whether its times carry no offset, so that the source's `timezone` is required."""
    max_window: timedelta | None
    """The longest span listed in one go; None where the API cannot filter by time and lists everything."""
    default_requests_per_second: float | None = None
    """The pace the vendor asks for where the configuration names none."""
    cookies: bool = False
    """Whether its sessions need cookies kept; they never leave the source's own HTTP session."""


class MediaStream(Protocol):
    """The body of a recording on its way. Closed by whoever opened it, on every exit."""

    @property
    def declared_length(self) -> int | None:
        """Content-Length, in bytes, where there is one; it is binding."""
        ...

    @property
    def content_type(self) -> str:
        """The header as sent, for messages only: the bytes decide what it is."""
        ...

    @property
    def framed(self) -> bool:
        """Whether an early end would be noticed: by a length, by chunks, or by the end mark of a compression."""
        ...

    @property
    def compressed(self) -> bool:
        """Whether the body came compressed, though nobody asked, and is read decompressed."""
        ...

    async def peek(self) -> bytes:
        """Return up to the first 512 bytes without consuming them; fewer only at the end of the body."""
        ...

    def chunks(self) -> AsyncIterator[bytes]:
        """Iterate over the body once. Retry or Truncated when it stalls, drips or ends early."""
        ...

    async def aclose(self) -> None:
        """Release connection and permit. May be called twice."""
        ...


class Vendor(Protocol):
    """A connector for one source. Created once per process and source; used by many coroutines of one loop.

    Errors are those of `worker.errors`. A method may be called again after any of them.
    """

    info: ClassVar[VendorInfo]

    def __init__(self, rest: RestClient, source: Source) -> None:
        """Do nothing but remember: no request is made before the first method call."""
        ...

    async def list_page(self, window: Window, cursor: str | None) -> Page:
        """Return one page of the finished (and, where the vendor lists them, unfinished) recordings.

        Rows that started outside the window may be among them; the caller drops those. `cursor` is None for
        the first page, then whatever the page before said. Rows that cannot be read are reported, not raised.
        """
        ...

    async def describe(self, recording: Recording) -> Recording:
        """Return the recording with what only a further call tells (parties, hash, size).

        Called once per recording that is about to be archived. Returns its argument where nothing is to be
        added. What merely enriches must not stop the archiving: a missing detail becomes a note.
        """
        ...

    async def open_media(self, recording: Recording) -> MediaStream:
        """Open the audio. Error documents with status 200 are recognised here and raised as errors."""
        ...
