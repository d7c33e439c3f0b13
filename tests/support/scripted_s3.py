"""A store that misbehaves on order, for what moto cannot do: races, lost replies, odd errors, cut connections.

It runs on the test's own event loop. Each request takes the next line of the script; when the script is over, the
last line is repeated. What was asked is kept in `seen`.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from aiohttp import web
from multidict import CIMultiDict

from config.settings import Archive
from storage.s3.store import S3Store
from storage.store import Capabilities
from tests.support.clock import FakeClock
from tests.support.s3 import archive_at

EVERYTHING = Capabilities(
    create_only=True, create_only_multipart=True, checksum=True, payload_hash=True, versioned=False, object_lock=False
)


@dataclass(frozen=True)
class Seen:
    """One request as it arrived."""

    method: str
    target: str
    """Path and query as they were sent, still encoded."""
    headers: Mapping[str, str]
    body: bytes

    @property
    def said(self) -> str:
        """Method and target without the bucket, such as `PUT /a?partNumber=1`."""
        return f"{self.method} {self.target.removeprefix('/calls')}"


@dataclass(frozen=True)
class Reply:
    """One answer. `cut`: the connection is cut instead, after the request was read; `hang`: nothing ever comes."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: bool = False
    hang: bool = False
    short: int = 0
    """Bytes of the body that are promised and not sent."""


Line = Reply | Callable[[Seen], Reply]

OK = Reply(headers={"ETag": '"e1"'})
CUT = Reply(cut=True)


def error(status: int, code: str, message: str | None = "told by the script", **more: str) -> Reply:
    """Return an answer with an S3 error document; `message` None leaves the element out."""
    elements = {"Code": code, **({"Message": message} if message is not None else {}), **more}
    inner = "".join(f"<{name}>{text}</{name}>" for name, text in elements.items())
    return Reply(status, f"<?xml version='1.0'?>\n<Error>{inner}</Error>".encode(), {"Content-Type": "application/xml"})


def xml(root: str, inner: str) -> Reply:
    """Return a good answer with a document in S3's namespace."""
    return Reply(body=f'<{root} xmlns="http://s3.amazonaws.com/doc/2006-03-01/">{inner}</{root}>'.encode())


def version_row(
    key: str = "a",
    version_id: str = "v1",
    *,
    marker: bool = False,
    latest: bool = False,
    size: int = 4,
    etag: str = "e",
    modified: str = "2026-03-05T12:00:00.000Z",
) -> str:
    """Return one row of a listing of versions."""
    tag, more = ("DeleteMarker", "") if marker else ("Version", f"<Size>{size}</Size><ETag>{etag}</ETag>")
    inner = f"<VersionId>{version_id}</VersionId><IsLatest>{str(latest).lower()}</IsLatest>{more}"
    return f"<{tag}><Key>{key}</Key>{inner}<LastModified>{modified}</LastModified></{tag}>"


def version_page(*rows: str, more: tuple[str, str] | None = None) -> Reply:
    """Return a page of a listing of versions; `more` holds the markers of the next, where there is one."""
    inner = "".join(rows)
    if more:
        marks = f"<NextKeyMarker>{more[0]}</NextKeyMarker><NextVersionIdMarker>{more[1]}</NextVersionIdMarker>"
        inner += f"<IsTruncated>true</IsTruncated>{marks}"
    return xml("ListVersionsResult", inner)


def begun(upload_id: str = "u1") -> Reply:
    """Return the answer to the beginning of an upload."""
    return xml("InitiateMultipartUploadResult", f"<UploadId>{upload_id}</UploadId>")


class ScriptedS3:
    """Use as an async context manager: `async with ScriptedS3(error(503, "SlowDown"), OK) as s3`."""

    def __init__(self, *script: Line) -> None:
        self.script: list[Line] = list(script)
        self.seen: list[Seen] = []
        self.asked = asyncio.Event()
        """Set whenever a request has arrived."""
        self.clock = FakeClock()
        self._stores: list[S3Store] = []

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=64 * 2**20)
        app.router.add_route("*", "/{anything:.*}", self._answer)
        self._stopping = asyncio.Event()
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        for store in self._stores:
            await store.aclose()
        self._stopping.set()
        await self._runner.cleanup()

    @property
    def archive(self) -> Archive:
        """Settings of the bucket `calls` here."""
        return archive_at(self.url, "calls")

    def store(self, **settings: Any) -> S3Store:
        """Return a store on the bucket `calls`, closed with this server; it can do everything unless told otherwise."""
        store = S3Store(self.archive, self.clock, **{"capabilities": EVERYTHING, **settings})
        self._stores.append(store)
        return store

    @property
    def said(self) -> list[str]:
        """What was asked, in order."""
        return [seen.said for seen in self.seen]

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        seen = Seen(request.method, request.raw_path, CIMultiDict(request.headers), await request.read())
        self.seen.append(seen)
        self.asked.set()
        line = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        reply = line(seen) if callable(line) else line
        if reply.hang:
            await self._stopping.wait()
        if reply.cut or reply.hang:
            assert request.transport
            request.transport.abort()
            raise asyncio.CancelledError
        if reply.short:
            answer = web.StreamResponse(status=reply.status, headers=reply.headers)
            answer.content_length = len(reply.body) + reply.short
            answer.force_close()
            await answer.prepare(request)
            await answer.write(reply.body)
            return answer
        return web.Response(status=reply.status, body=reply.body, headers=reply.headers)
