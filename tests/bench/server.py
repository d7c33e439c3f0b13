"""What everybody in the benchmark talks to: a phone system and a bucket, as cheap as Python can make them.

One process, one thread, no framework: a request costs it some 40 microseconds, a body nothing but the kernel's copy. It
lists and serves recordings that it computes from their number, and swallows what is put into its bucket, of which it
keeps name, size and metadata. Of S3 it does what rclone, boto3 and callvault ask for: create-only writes, uploads in
parts, checksums (looked at for probes alone), listings. Buckets with a million objects are computed too, not stored.

`GET /control/stats` tells what was asked for; `POST /control/plan` sets the stage anew.
"""

import asyncio
import base64
import hashlib
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import cache
from typing import Any
from urllib.parse import parse_qsl, quote, unquote

import uvloop

BUCKET = "bench"
_BUFFER = 256 * 1024
_PIECE = 256 * 1024
_DAY = 86400
_STALL_AFTER = 4096


@cache
def media(size: int) -> bytes:
    """Return a WAV of that size; its header tells the truth."""
    head = b"RIFF" + (size - 8).to_bytes(4, "little") + b"WAVEfmt " + (16).to_bytes(4, "little") + bytes(16)
    noise = os.urandom(min(size, 1 << 20))
    return (head + noise * (size // len(noise) + 1))[:size]


@dataclass
class Source:
    """Recordings of one phone system, at equal distances; number `n` started at `first + n * step`."""

    first: float
    step: float
    count: int
    size: int = 48_000
    seconds: int = 6
    held: bool = False
    """Whether the bucket has them already."""
    live: bool = False
    """Whether each is listed only once it has ended."""
    stalls: bool = False
    """Whether their audio never ends."""

    def name(self, n: int) -> str:
        return f"gw1-{int(self.start(n))}.{n}"

    def start(self, n: int) -> float:
        return self.first + n * self.step

    def between(self, start: float, end: float) -> range:
        """Return the numbers of those that started in `[start, end)`."""
        low = max(0, -int(-(start - self.first) // self.step))
        high = min(self.count, -int(-(end - self.first) // self.step))
        if self.live:
            high = min(high, int((time.time() - self.seconds - self.first) // self.step) + 1)
        return range(low, max(low, high))

    def on(self, day: date) -> range:
        midnight = datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()
        return self.between(midnight, midnight + _DAY)

    def days(self) -> list[str]:
        first, last = (datetime.fromtimestamp(self.start(n), UTC).date() for n in (0, self.count - 1))
        return [f"date={first + timedelta(days=n)}/" for n in range((last - first).days + 1)]

    def row(self, n: int) -> dict[str, Any]:
        start = datetime.fromtimestamp(self.start(n), UTC)
        return {
            "id": self.name(n),
            "start": f"{start:%Y-%m-%d %H:%M:%S}",
            "duration": str(timedelta(seconds=self.seconds)).rjust(8, "0"),
            "src_num": f"+1555010{n % 1000:04d}",
            "dst_num": str(1000 + n % 40),
            "agent": f"Agent {n % 17} (1564)",
            "queue": "support (3556)",
            "status": "answered",
            "attached_data": {"recording": self.name(n), "customer": f"C{n:08d}", "ivr_choice": "2"},
        }


@dataclass
class Stage:
    """All there is: sources, objects, and what was asked for."""

    sources: dict[str, Source] = field(default_factory=dict)
    objects: dict[str, tuple[int, str, bytes]] = field(default_factory=dict)
    uploads: dict[str, tuple[str, int, bytes]] = field(default_factory=dict)
    asked: Counter[str] = field(default_factory=Counter)
    arrived: list[tuple[str, float]] = field(default_factory=list)
    """Sidecars, and when they came."""
    swallowed: int = 0


@dataclass(slots=True)
class Request:
    """One request without its body, of which only small ones are kept."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[bytes, bytes]
    size: int
    body: bytes = b""


_REASONS = {200: "OK", 204: "No Content", 400: "Bad Request", 404: "Not Found", 412: "Precondition Failed"}


def answer(status: int, body: bytes = b"", headers: bytes = b"", length: int | None = None) -> bytes:
    """Return a whole answer; for HEAD, `length` is that of the body which is not sent."""
    size = len(body) if length is None else length
    return b"HTTP/1.1 %d %s\r\nContent-Length: %d\r\n%s\r\n%s" % (
        status,
        _REASONS[status].encode(),
        size,
        headers,
        body,
    )


def error(status: int, code: str) -> bytes:
    """Return an S3 error document."""
    return answer(status, f"<Error><Code>{code}</Code><Message>{code}</Message></Error>".encode(), _XML)


_XML = b"Content-Type: application/xml\r\n"


class Bucket:
    """S3, as far as it is asked."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage

    def answer(self, request: Request) -> bytes:
        key = unquote(request.path[len(BUCKET) + 2 :])
        query = request.query
        match request.method:
            case "PUT" if "uploadId" in query:
                return self._part(request, query["uploadId"])
            case "PUT" if key:
                return self._put(request, key)
            case "POST" if "uploads" in query:
                return self._begin(request, key)
            case "POST" if "uploadId" in query:
                return self._complete(request, key, query["uploadId"])
            case "POST":  # delete many
                return answer(200, b"<DeleteResult/>", _XML)
            case "DELETE":
                return self._delete(key, query)
            case "HEAD":
                return self._head(key)
            case "GET" if not key and "list-type" in query:
                self._stage.asked["s3 list"] += 1
                return self._list(query)
            case "GET" if not key and "versions" in query:
                self._stage.asked["s3 list"] += 1
                return answer(200, b"<ListVersionsResult><IsTruncated>false</IsTruncated></ListVersionsResult>", _XML)
            case "GET" if not key and "uploads" in query:
                self._stage.asked["s3 list"] += 1
                return answer(
                    200,
                    b"<ListMultipartUploadsResult><IsTruncated>false</IsTruncated></ListMultipartUploadsResult>",
                    _XML,
                )
        self._stage.asked["s3 other"] += 1
        return error(404, "NoSuchKey" if key else "ObjectLockConfigurationNotFoundError")

    def _put(self, request: Request, key: str) -> bytes:
        stage = self._stage
        stage.asked["s3 put"] += 1
        if not _right(request, key):
            return error(400, "BadDigest")
        if b"if-none-match" in request.headers and self._known(key):
            return error(412, "PreconditionFailed")
        etag = _etag(request.headers)
        meta = b"".join(b"%s: %s\r\n" % pair for pair in request.headers.items() if pair[0].startswith(b"x-amz-meta-"))
        stage.objects[key] = (request.size, etag, meta)
        stage.swallowed += request.size
        if key.endswith(".json") and "/recordings/" in key:
            stage.arrived.append((key, time.time()))
        return answer(200, b"", b'ETag: "%s"\r\n%s' % (etag.encode(), _echo(request)))

    def _part(self, request: Request, upload: str) -> bytes:
        stage = self._stage
        stage.asked["s3 put"] += 1
        if upload not in stage.uploads:
            return error(404, "NoSuchUpload")
        key, size, meta = stage.uploads[upload]
        stage.uploads[upload] = (key, size + request.size, meta)
        stage.swallowed += request.size
        return answer(200, b"", b'ETag: "%s"\r\n%s' % (_etag(request.headers).encode(), _echo(request)))

    def _begin(self, request: Request, key: str) -> bytes:
        stage = self._stage
        stage.asked["s3 post"] += 1
        upload = f"u{stage.asked['s3 post']:08d}"
        meta = b"".join(b"%s: %s\r\n" % pair for pair in request.headers.items() if pair[0].startswith(b"x-amz-meta-"))
        stage.uploads[upload] = (key, 0, meta)
        body = f"<Bucket>{BUCKET}</Bucket><Key>{key}</Key><UploadId>{upload}</UploadId>"
        return answer(200, f"<InitiateMultipartUploadResult>{body}</InitiateMultipartUploadResult>".encode(), _XML)

    def _complete(self, request: Request, key: str, upload: str) -> bytes:
        stage = self._stage
        stage.asked["s3 post"] += 1
        if upload not in stage.uploads:
            return error(404, "NoSuchUpload")
        if b"if-none-match" in request.headers and self._known(key):
            return error(412, "PreconditionFailed")
        _, size, meta = stage.uploads.pop(upload)
        stage.objects[key] = (size, "0" * 32 + "-1", meta)
        body = f'<Bucket>{BUCKET}</Bucket><Key>{key}</Key><ETag>"{"0" * 32}-1"</ETag>'
        return answer(200, f"<CompleteMultipartUploadResult>{body}</CompleteMultipartUploadResult>".encode(), _XML)

    def _delete(self, key: str, query: dict[str, str]) -> bytes:
        self._stage.asked["s3 delete"] += 1
        self._stage.uploads.pop(query.get("uploadId", ""), None)
        self._stage.objects.pop(key, None)
        return answer(204)

    def _head(self, key: str) -> bytes:
        self._stage.asked["s3 head"] += 1
        found = self._known(key) if key else (0, "", b"")
        if found is None:
            return answer(404)
        size, etag, meta = found
        headers = b'ETag: "%s"\r\nLast-Modified: Sat, 07 Mar 2026 12:00:00 GMT\r\n%s' % (etag.encode(), meta)
        return answer(200, b"", headers, size)

    def _known(self, key: str) -> tuple[int, str, bytes] | None:
        if found := self._stage.objects.get(key):
            return found
        source = self._stage.sources.get(_part_of(key, "source="))
        if source is None or not source.held or not key.startswith("v1/recordings/"):
            return None
        mark = datetime.fromtimestamp(source.start(source.count), UTC).isoformat()
        return 1300, "0" * 32, f"x-amz-meta-watermark: {mark}\r\n".encode()

    def _list(self, query: dict[str, str]) -> bytes:
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
        after = max(query.get("start-after", ""), query.get("continuation-token", ""))
        most = int(query.get("max-keys", "1000"))
        names = [name for name in self._below(prefix, delimiter) if name > after]
        page, more = names[:most], len(names) > most
        rows = "".join(
            f"<CommonPrefixes><Prefix>{quote(name)}</Prefix></CommonPrefixes>"
            if name.endswith("/")
            else f"<Contents><Key>{quote(name)}</Key><Size>1300</Size><LastModified>2026-03-07T12:00:00.000Z"
            f"</LastModified><ETag>&quot;{'0' * 32}&quot;</ETag><StorageClass>STANDARD</StorageClass></Contents>"
            for name in page
        )
        token = f"<NextContinuationToken>{page[-1]}</NextContinuationToken>" if more else ""
        return answer(
            200,
            f"<ListBucketResult><Name>{BUCKET}</Name><EncodingType>url</EncodingType><KeyCount>{len(page)}</KeyCount>"
            f"<IsTruncated>{str(more).lower()}</IsTruncated>{token}{rows}</ListBucketResult>".encode(),
            _XML,
        )

    def _below(self, prefix: str, delimiter: str) -> list[str]:
        """Return keys, or folders where there is a delimiter, below a prefix; both those put and those computed."""
        found = set(self._computed(prefix, delimiter))
        for key in self._stage.objects:
            if key.startswith(prefix):
                rest = key[len(prefix) :]
                end = rest.find(delimiter) if delimiter else -1
                found.add(prefix + rest[: end + 1] if end >= 0 else key)
        return sorted(found)

    def _computed(self, prefix: str, delimiter: str) -> Iterator[str]:
        source = self._stage.sources.get(_part_of(prefix, "source="))
        if source is None or not source.held or not prefix.startswith("v1/recordings/"):
            return
        day = _part_of(prefix, "date=")
        if delimiter and not day:
            yield from (prefix + name for name in source.days())
        elif day:
            for n in source.on(date.fromisoformat(day)):
                yield from (f"{prefix}{source.name(n)}.json", f"{prefix}{source.name(n)}.wav")


class PhoneSystem:
    """XiVO CC, several of them, each below `/pbx/NAME`."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage

    def answer(self, request: Request) -> bytes:
        _, _, name, _, *rest = request.path.split("/")
        source = self._stage.sources[name]
        if rest == ["search"]:
            self._stage.asked["pbx list"] += 1
            return self._search(source, request)
        self._stage.asked["pbx media"] += 1
        return answer(200, b"", b"Content-Type: audio/wav\r\n", source.size)

    def audio(self, request: Request) -> tuple[bytes, bool]:
        """Return what follows the head, and whether it ends."""
        source = self._stage.sources[request.path.split("/")[2]]
        body = media(source.size)
        return (body[:_STALL_AFTER], False) if source.stalls else (body, True)

    def _search(self, source: Source, request: Request) -> bytes:
        asked = json.loads(request.body)
        start, end = (
            datetime.strptime(asked[name], "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC).timestamp()
            for name in ("start", "end")
        )
        numbers = source.between(start - source.seconds, end)
        page, size = int(request.query["page"]), int(request.query["pageSize"])
        first = numbers.stop - 1 - (page - 1) * size
        shown = range(first, max(numbers.start - 1, first - size), -1)
        more = first - size >= numbers.start
        body = json.dumps({"hasNext": more, "records": [source.row(n) for n in shown]}).encode()
        return answer(200, body, b"Content-Type: application/json\r\n")


def _part_of(key: str, name: str) -> str:
    """Return what stands behind `name` in a key, up to the next slash."""
    return key.partition(name)[2].partition("/")[0]


def _right(request: Request, key: str) -> bool:
    """Check body and checksum of a probe; recordings are taken on trust, so as not to pay for hashing here."""
    if "/probe/" not in key:
        return True
    digest = hashlib.sha256(request.body).digest()
    told = request.headers.get(b"x-amz-checksum-sha256")
    signed = request.headers.get(b"x-amz-content-sha256", b"").decode()
    return (told is None or base64.b64decode(told) == digest) and signed in (digest.hex(), "UNSIGNED-PAYLOAD")


def _etag(headers: dict[bytes, bytes]) -> str:
    """Return the MD5 that the client sent, so that it finds what it expects; else an ETag that is no MD5."""
    told = headers.get(b"content-md5")
    return base64.b64decode(told).hex() if told else "0" * 32 + "-1"


def _echo(request: Request) -> bytes:
    told = request.headers.get(b"x-amz-checksum-sha256")
    return b"x-amz-checksum-sha256: %s\r\n" % told if told else b""


class Http(asyncio.BufferedProtocol):
    """One connection. Bodies beyond a buffer are read over and over into the same one."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._bucket = Bucket(stage)
        self._phones = PhoneSystem(stage)
        self._buffer = bytearray(_BUFFER)
        self._view = memoryview(self._buffer)
        self._filled = 0
        self._request: Request | None = None
        self._left = 0

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._view[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:
        self._filled += nbytes
        while self._step():
            pass

    def _step(self) -> bool:
        """Take a head or a piece of a body out of the buffer; False where more must come first."""
        if self._request is None:
            end = self._buffer.find(b"\r\n\r\n", 0, self._filled)
            if end < 0:
                return False
            self._request = _parsed(bytes(self._view[:end]))
            self._left = self._request.size
            self._drop(end + 4)
            if b"expect" in self._request.headers:
                self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        whole = self._left <= _BUFFER and self._left == self._request.size
        if whole and self._filled < self._left:
            return False
        taken = min(self._filled, self._left)
        if whole:
            self._request.body = bytes(self._view[:taken]) if taken < 65536 else b""
        self._left -= taken
        self._drop(taken)
        if self._left:
            return False
        request, self._request = self._request, None
        self._serve(request)
        return self._filled > 0

    def _drop(self, size: int) -> None:
        self._filled -= size
        if self._filled:
            self._buffer[: self._filled] = self._buffer[size : size + self._filled]

    def _serve(self, request: Request) -> None:
        if request.path.startswith("/pbx/"):
            head = self._phones.answer(request)
            if request.method == "GET":
                body, ends = self._phones.audio(request)
                if len(body) <= _PIECE:
                    self._transport.write(head + body)
                else:
                    self._transport.writelines([head, body])
                if not ends:
                    self._stage.asked["pbx stalled"] += 1
            else:
                self._transport.write(head)
        elif request.path.startswith("/control/"):
            self._transport.write(self._control(request))
        else:
            self._transport.write(self._bucket.answer(request))

    def _control(self, request: Request) -> bytes:
        stage = self._stage
        match request.path:
            case "/control/plan":
                stage.__init__({name: Source(**told) for name, told in json.loads(request.body).items()})  # type: ignore[misc]
                for source in stage.sources.values():
                    media(source.size)
            case "/control/forget":
                stage.asked.clear()
        told = {
            "asked": stage.asked,
            "sidecars": len(stage.arrived),
            "swallowed": stage.swallowed,
            "cpu": time.process_time(),
        }
        if request.path == "/control/arrivals":
            told["arrived"] = stage.arrived
        return answer(200, json.dumps(told).encode())


def _parsed(head: bytes) -> Request:
    line, *lines = head.split(b"\r\n")
    method, target, _ = line.decode("latin-1").split(" ", 2)
    path, _, query = target.partition("?")
    headers = {}
    for told in lines:
        name, _, value = told.partition(b":")
        headers[name.lower()] = value.strip()
    asked = dict(parse_qsl(query, keep_blank_values=True)) if query else {}
    return Request(method, path, asked, headers, int(headers.get(b"content-length", b"0")))


async def serve() -> None:
    """Serve on a free port, which is printed, until standard input ends."""
    loop, stage = asyncio.get_running_loop(), Stage()
    server = await loop.create_server(lambda: Http(stage), "127.0.0.1", 0, backlog=1024)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    over = asyncio.Event()
    loop.add_reader(sys.stdin.fileno(), over.set)
    await over.wait()


if __name__ == "__main__":
    uvloop.run(serve())
