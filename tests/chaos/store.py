"""An S3 that misbehaves and watches: moto over HTTP, wrapped so that any request may fail in any way a store's can.

It also keeps the promises' score: every object that becomes visible under `recordings/` is compared with the truth
in that very moment, a sidecar with its media too, and nothing there may be deleted. What is doubled shows at the
end, because the bucket keeps versions.
"""

import contextlib
import io
import json
import random
import re
import socket
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from hashlib import sha256
from typing import Any
from urllib.parse import parse_qs, quote, unquote
from xml.sax.saxutils import escape

from moto.s3.models import s3_backends

from tests.chaos.ledger import Ledger

_WRITES = ("PutObject", "CompleteMultipartUpload")
_STAGES = ("CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload")
_KEY = re.compile(r"v1/recordings/source=([a-z0-9-]+)/date=[0-9-]{10}/(.+)\.([a-z0-9]+)")
_SKEW = timedelta(minutes=20)
_STALL = 20.0  # seconds without an answer

Truth = Callable[[str, str], set[str]]
"""Returns the SHA-256 that the media of a recording may have, by source and rid; empty where there is no such one."""


@dataclass(frozen=True)
class Asked:
    """One request, read whole."""

    operation: str
    key: str
    body: bytes
    environ: dict[str, Any]


_ALL = ()
KINDS: dict[str, tuple[float, tuple[str, ...]]] = {
    "500 InternalError": (1, _ALL),
    "503 SlowDown": (1, _ALL),
    "403 AccessDenied": (0.3, _ALL),
    "500 while a multipart upload is under way": (12, _STAGES),
    "cut while a multipart upload is under way": (12, _STAGES),
    "reply lost while a multipart upload is under way": (12, _STAGES),
    "cut while sending": (1, _ALL),
    "reply lost after the write": (1.5, _WRITES),
    "409 ConditionalRequestConflict": (1, _WRITES),
    "412 by a rival with the same bytes": (1, _WRITES),
    "an answer that is not XML": (1, ("ListObjectsV2",)),
    "no answer": (0.02, _ALL),
    "an answer a second late": (0.4, _ALL),
}
"""What can go wrong: how often beside the others, and with which operations (all where there are none)."""


class FaultyStore:
    """Wraps moto's WSGI application; see `tests.support.s3.moto`."""

    def __init__(self, ledger: Ledger, truth: Truth, dice: random.Random) -> None:
        self._ledger = ledger
        self._truth = truth
        self._dice = dice
        self._lock = threading.Lock()
        self._app: Any = None
        self.share = 0.0
        """Of all requests, how many go wrong."""
        self.skewed = False
        """Whether the store's clock is off, so that it refuses every signature."""
        self.ignores_conditions = False
        """Whether `If-None-Match` is ignored, as some stores do."""

    def around(self, app: Any) -> Any:
        """Wrap moto's application."""
        self._app = app
        return self

    def calm(self) -> None:
        """End all faults, but not the store's own nature."""
        self.share, self.skewed = 0.0, False

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        if "Boto3" in environ.get("HTTP_USER_AGENT", ""):  # whoever looks from outside sees what is there
            return list(self._app(environ, start_response))
        kind = self._due(_operation(environ))
        if kind == "cut while sending":
            self._ledger.struck("S3", kind)
            raise _reset(environ)
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        if self.ignores_conditions and environ.pop("HTTP_IF_NONE_MATCH", None):
            self._ledger.struck("S3", "If-None-Match ignored")
        _, _, key = unquote(environ["PATH_INFO"]).lstrip("/").partition("/")
        asked = Asked(_operation(environ), key, body, environ)
        if self.skewed and environ.get("HTTP_AUTHORIZATION", "").startswith("AWS4") and key.startswith("v1/"):
            self._ledger.struck("S3", "clock 20 minutes off")
            return _error(start_response, 403, "RequestTimeTooSkewed", skew=_SKEW)
        return self._answered(kind, asked, start_response)

    def _due(self, operation: str) -> str | None:
        with self._lock:
            more = 4 if operation in _STAGES else 1  # large recordings are few
            if self._dice.random() >= self.share * more:
                return None
            fitting = [(kind, weight) for kind, (weight, ops) in KINDS.items() if not ops or operation in ops]
            return self._dice.choices([kind for kind, _ in fitting], [weight for _, weight in fitting])[0]

    def _answered(self, kind: str | None, asked: Asked, start_response: Any) -> Iterable[bytes]:
        if kind:
            self._ledger.struck("S3", kind)
        match kind:
            case "500 InternalError" | "500 while a multipart upload is under way":
                return _error(start_response, 500, "InternalError")
            case "503 SlowDown":
                return _error(start_response, 503, "SlowDown")
            case "403 AccessDenied":
                return _error(start_response, 403, "AccessDenied")
            case "409 ConditionalRequestConflict":
                return _error(start_response, 409, "ConditionalRequestConflict")
            case "an answer that is not XML":
                start_response("200 OK", [("Content-Type", "text/html"), ("Content-Length", "15")])
                return [b"<p>Maintenance</"[:15]]
            case "cut while a multipart upload is under way":
                raise _reset(asked.environ)
            case "reply lost after the write" | "reply lost while a multipart upload is under way":
                self._done(asked, lambda *_: None)
                raise _reset(asked.environ)
            case "412 by a rival with the same bytes" if asked.environ.get("HTTP_IF_NONE_MATCH"):
                self._done(asked, lambda *_: None)
            case "no answer":
                time.sleep(_STALL)  # in a thread of its own; the client is to give up by itself
                raise _reset(asked.environ)
            case "an answer a second late":
                time.sleep(1)
        if asked.operation == "ListObjectVersions":
            return _versions(asked, start_response)
        return self._done(asked, start_response)

    def _done(self, asked: Asked, start_response: Any) -> Iterable[bytes]:
        """Have moto do it, and look at what it left."""
        statuses: list[str] = []

        def noting(status: str, headers: Any, *more: Any) -> Any:
            statuses.append(status)
            return start_response(status, headers, *more)

        try:
            answer = list(self._app({**asked.environ, "wsgi.input": io.BytesIO(asked.body)}, noting))
        except KeyError:  # moto's way of saying that it knows no such upload
            return _error(start_response, 404, "NoSuchUpload")
        if statuses and statuses[0].startswith("2"):
            self._look(asked)
        return answer

    def _look(self, asked: Asked) -> None:
        found = _KEY.fullmatch(asked.key)
        if found is None:
            if asked.operation in _WRITES and asked.key.startswith("v1/recordings/"):
                self._ledger.breach("other", f"{asked.key} is no key of the layout")
            return
        if asked.operation == "DeleteObject":
            self._ledger.breach("deleted", asked.key)
        if asked.operation in _WRITES:
            source, rid, ext = found.groups()
            bucket = unquote(asked.environ["PATH_INFO"]).lstrip("/").partition("/")[0]
            if ext == "json":
                self._look_at_sidecar(bucket, asked.key, source, rid)
            else:
                self._look_at_media(bucket, asked.key, source, rid)

    def _look_at_media(self, bucket: str, key: str, source: str, rid: str) -> None:
        body = stored(bucket, key)
        if body is None or sha256(body).hexdigest() not in self._truth(source, rid):
            self._ledger.breach("wrong", f"{key} has {len(body or b'')} bytes that the phone system never had")

    def _look_at_sidecar(self, bucket: str, key: str, source: str, rid: str) -> None:
        sidecar = json.loads(stored(bucket, key) or b"{}")
        body = stored(bucket, sidecar.get("media", {}).get("key", ""))
        if body is None:
            self._ledger.breach("wrong", f"{key} was written before its media")
        elif (told := sha256(body).hexdigest()) != sidecar["media"]["sha256"] or told not in self._truth(source, rid):
            self._ledger.breach("wrong", f"{key} describes other bytes than its media has")


def bucket_of(name: str) -> Any:
    """Return what moto holds in a bucket: a mapping of keys to objects, past HTTP. KeyError where there is none."""
    for account in list(s3_backends.values()):
        if name in account["aws"].buckets:
            return account["aws"].buckets[name].keys
    raise KeyError(name)


def stored(bucket: str, key: str) -> bytes | None:
    """Return the bytes moto holds under a key."""
    found = bucket_of(bucket).get(key)
    return bytes(found.value) if found is not None else None


def _operation(environ: dict[str, Any]) -> str:
    query = parse_qs(environ.get("QUERY_STRING", ""), keep_blank_values=True)
    key = unquote(environ["PATH_INFO"]).lstrip("/").partition("/")[2]
    match environ["REQUEST_METHOD"]:
        case "PUT":
            return "UploadPart" if "uploadId" in query else "PutObject"
        case "POST":
            return "CreateMultipartUpload" if "uploads" in query else "CompleteMultipartUpload"
        case "DELETE":
            return "AbortMultipartUpload" if "uploadId" in query else "DeleteObject"
        case "HEAD":
            return "HeadObject"
    if key:
        return "GetObject"
    if "uploads" in query:
        return "ListMultipartUploads"
    return "ListObjectVersions" if "versions" in query else "ListObjectsV2" if "list-type" in query else "GetBucket"


def _versions(asked: Asked, start_response: Any) -> Iterable[bytes]:
    """List the versions of one key. moto would walk through the whole bucket for it, after every single write."""
    bucket = unquote(asked.environ["PATH_INFO"]).strip("/")
    key = parse_qs(asked.environ["QUERY_STRING"])["prefix"][0]
    rows = "".join(
        f"<Version><Key>{quote(key)}</Key><VersionId>{found.version_id}</VersionId><IsLatest>false</IsLatest>"
        f"<LastModified>2026-01-01T00:00:00Z</LastModified><ETag>{escape(found.etag)}</ETag>"
        f"<Size>{found.size}</Size></Version>"
        for found in bucket_of(bucket).getlist(key, default=[])
    )
    head = "<EncodingType>url</EncodingType><IsTruncated>false</IsTruncated>"
    body = f"<ListVersionsResult>{head}{rows}</ListVersionsResult>"
    start_response("200 OK", [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
    return [body.encode()]


def _reset(environ: dict[str, Any]) -> ConnectionResetError:
    """Cut the connection, and return what ends the server's work on it."""
    connection: socket.socket = environ["werkzeug.socket"]
    with contextlib.suppress(OSError):  # the client was first
        connection.shutdown(socket.SHUT_RDWR)
    return ConnectionResetError("cut on purpose")


def _error(start_response: Any, status: int, code: str, skew: timedelta = timedelta()) -> Iterable[bytes]:
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>on purpose</Message></Error>".encode()
    now = format_datetime(datetime.now(UTC) - skew, usegmt=True)
    headers = [("Content-Type", "application/xml"), ("Content-Length", str(len(body))), ("Date", now)]
    start_response(f"{status} Error", headers)
    return [body]
