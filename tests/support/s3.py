"""An S3 over HTTP for tests: moto's server on a free loopback port, fresh buckets, a second pair of eyes.

moto is a double, not an oracle: what it gets wrong is written down in `moto_can`. A real server is
`tests.support.rgw`, with gaps of its own in `rgw_can`; buckets and eyes are the same for both.
"""

import functools
import itertools
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import boto3
from botocore.config import Config
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from pydantic import SecretStr
from werkzeug.serving import WSGIRequestHandler, make_server

from config.settings import Archive
from storage.store import Capabilities
from tests.support.rgw import TEST_KEY, TEST_SECRET

_numbers = itertools.count(1)


def moto_can(*, versioned: bool, object_lock: bool) -> Capabilities:
    """What a probe must find: moto heeds conditions, and accepts wrong checksums and wrong signed hashes."""
    return Capabilities(
        create_only=True,
        create_only_multipart=True,
        checksum=False,
        payload_hash=False,
        versioned=versioned,
        object_lock=object_lock,
    )


def rgw_can(*, versioned: bool, object_lock: bool) -> Capabilities:
    """What a probe must find on 16.2: conditions count only where there are no versions, checksums never."""
    return Capabilities(
        create_only=not versioned,
        create_only_multipart=False,
        checksum=False,
        payload_hash=True,
        versioned=versioned,
        object_lock=object_lock,
    )


class _OneAtATime:
    """moto looks and then writes; a lock around it makes its conditional writes atomic, as a real store's are."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self._lock = threading.Lock()

    def __call__(self, environ: Any, start_response: Any) -> Iterable[bytes]:
        with self._lock:
            return list(self._app(environ, start_response))


class _KeptAlive(WSGIRequestHandler):
    """Silent, and connections stay open between requests as they do with real stores."""

    protocol_version = "HTTP/1.1"

    def log_request(self, *args: Any) -> None:
        return

    def send_response(self, code: int, message: str | None = None) -> None:
        self.send_response_only(code, message)  # werkzeug adds a Date where the application gave none

    def connection_dropped(self, error: BaseException, environ: Any = None) -> None:
        self.close_connection = True  # what is left of the request must not be read as the next


@contextmanager
def moto(around: Callable[[Any], Any] = lambda app: app) -> Iterator[str]:
    """Run moto's S3 and yield its URL. Buckets are made fresh instead of restarting it.

    `around` may wrap the WSGI application, to make it misbehave.
    """
    app = around(_OneAtATime(DomainDispatcherApplication(create_backend_app)))
    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=_KeptAlive)
    server.daemon_threads = True
    server.block_on_close = False
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join(10)
        server.server_close()


def eyes(archive: Archive) -> Any:
    """Return a boto3 client for the archive's bucket: what a test sees the outcome with, independently of our code."""
    assert archive.access_key_id
    assert archive.secret_access_key
    return _client(
        archive.endpoint_url, archive.access_key_id.get_secret_value(), archive.secret_access_key.get_secret_value()
    )


@functools.cache  # making one takes a third of a second
def _client(endpoint: str, key: str, secret: str) -> Any:
    return boto3.session.Session().client(
        "s3",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id=key,
        aws_secret_access_key=secret,
        config=Config(s3={"addressing_style": "path"}, proxies={}),
    )


def archive_at(endpoint: str, bucket: str, *, prefix: str = "") -> Archive:
    """Return settings for a bucket, credentials included: moto takes any."""
    return Archive(
        bucket=bucket,
        prefix=prefix,
        endpoint_url=endpoint,
        region="us-east-1",
        access_key_id=SecretStr(TEST_KEY),
        secret_access_key=SecretStr(TEST_SECRET),
    )


def new_bucket(endpoint: str, *, versioned: bool = False, object_lock: bool = False, prefix: str = "") -> Archive:
    """Make a bucket that no other test uses and return the settings for it."""
    archive = archive_at(endpoint, f"calls-{next(_numbers)}-{threading.get_native_id()}", prefix=prefix)
    s3 = eyes(archive)
    s3.create_bucket(Bucket=archive.bucket, ObjectLockEnabledForBucket=object_lock)
    if versioned and not object_lock:
        s3.put_bucket_versioning(Bucket=archive.bucket, VersioningConfiguration={"Status": "Enabled"})
    return archive
