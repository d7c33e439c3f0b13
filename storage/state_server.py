"""One Redis or Valkey server: how it is addressed, how commands reach it, and what its errors mean.

What is asked of it is `storage.state_redis`. Takes the URLs that Celery takes: redis://, rediss://, unix://,
redis+socket:// and the sentinel:// of `config.sentinel`. No message from here holds a
user name, a password or a URL's query.
"""

import asyncio
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from redis import exceptions
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel, SentinelManagedConnection
from redis.backoff import ExponentialBackoff
from redis.commands.core import AsyncScript

from config.sentinel import FORM, is_sentinel, read_sentinels
from storage.state import StateRefused, StateUnavailable

_DEFAULTS: dict[str, Any] = {
    "decode_responses": True,
    "encoding_errors": "surrogatepass",  # a vendor's text may hold half a character; it comes back as it went
    "protocol": 2,  # all that is needed, and no handshake that servers differ in
    "socket_timeout": 5.0,
    "socket_connect_timeout": 5.0,
}
_CONNECTIONS = 16  # of one process; more requests at once wait their turn
_WAIT_FOR_CONNECTION = 20.0  # seconds
_OTHER_NAMES = (
    (r"^redis\+socket:", "unix:"),
    (r"\bvirtual_host=", "db="),
    (r"\bssl_cert_reqs=CERT_", "ssl_cert_reqs="),
)
_EXCERPT = 200  # characters of the library's or the server's own words
# What uvloop says, in a RuntimeError, to who writes to a connection that is closed. Python's own loop takes the bytes,
# and the reader finds the end. redis-py foresees only that.
_CLOSED = "the handler is closed"
_TRIED_AGAIN: Any = (exceptions.ConnectionError, exceptions.TimeoutError, RuntimeError)

_CODES: tuple[tuple[type[Exception], str], ...] = (
    (exceptions.BusyLoadingError, "LOADING"),
    (exceptions.AuthenticationError, "NOAUTH"),
    (exceptions.NoPermissionError, "NOPERM"),
    (exceptions.OutOfMemoryError, "OOM"),
    (exceptions.ReadOnlyError, "READONLY"),
    (exceptions.MasterDownError, "MASTERDOWN"),  # a kind of ClusterDownError, and no sign of a cluster
    (exceptions.ClusterDownError, "MOVED"),
    (exceptions.AskError, "MOVED"),
    (exceptions.ClusterCrossSlotError, "MOVED"),
    (exceptions.InvalidResponse, "PROTOCOL"),
    (exceptions.ConnectionError, "SILENT"),
    (exceptions.TimeoutError, "SILENT"),
    (OSError, "SILENT"),
)
# Redis 6.2 wraps what fails inside a script: "Error running script …: -OOM command not allowed …".
_IN_WORDS = re.compile(r"\b(OOM|READONLY|MISCONF|NOREPLICAS|MASTERDOWN|BUSY|NOPERM|MOVED|WRONGTYPE)\b")

_PASSES: Mapping[str, str] = {
    "SILENT": "does not answer ({words}): see that it runs and that [broker] url, or state_url, is right",
    "LOADING": "is still loading its data: this passes",
    "OOM": "is out of memory: raise its maxmemory, or find out what fills it; keep maxmemory-policy noeviction",
    "READONLY": "is a replica and cannot be written: this passes after a failover, else give the primary's address",
    "MASTERDOWN": "is a replica that lost its primary: see that the primary runs",
    "MISCONF": "refuses writes because it cannot save to disk: see its log and its free space",
    "NOREPLICAS": "refuses writes because too few replicas follow it: see that they run",
    "BUSY": "is busy with a script that does not end: see its log",
}
_STAYS: Mapping[str, str] = {
    "NOAUTH": "refuses the user name or password: correct them in [broker] url, or state_url",
    "NOPERM": "does not let this user do that ({words}): extend the user's rights",
    "CERTIFICATE": "shows a certificate that is not trusted ({words}): name the authority that signed it with "
    "ssl_ca_certs=/path/to/ca.pem in the URL",
    "MOVED": "belongs to a cluster, which is not supported: use a single server, or Sentinel",
    "WRONGTYPE": "holds something under {key} that callvault did not write: delete that key, nothing is lost by it",
    "PROTOCOL": "does not speak Redis's protocol: see that [broker] url, or state_url, names the right port",
}


class _ToThePrimary(SentinelManagedConnection):
    """Asks the Sentinels whenever it connects; redis-py 8.1 goes back to the address it knew when it sends again."""

    async def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        if not self.is_connected:
            await self.connect()  # type: ignore[no-untyped-call] # redis-py leaves it untyped
        await super().send_packed_command(command, check_health)


class Server:
    """Connections to one server. `address` is for messages: host and port, never a password."""

    def __init__(self, url: str, **options: Any) -> None:
        """Open no connection. StateRefused when the URL cannot be one of a server for state."""
        settings = _DEFAULTS | {"retry": Retry(ExponentialBackoff(cap=0.5, base=0.05), 2, _TRIED_AGAIN)} | options
        self._sentinels: list[Redis] = []
        if is_sentinel(url):
            self._client = self._through_sentinel(url, settings)
        else:
            pool = _pool(url, settings)
            self._client = Redis.from_pool(pool)
            self.address = _address(pool.connection_kwargs)
        self._scripts: dict[str, AsyncScript] = {}

    def _through_sentinel(self, url: str, settings: dict[str, Any]) -> Redis:
        try:
            told = read_sentinels(url)
        except ValueError as error:
            raise StateRefused(f"the state is given no address of Sentinels: {error}; write {FORM}") from None
        asking = {key: settings[key] for key in ("protocol", "retry", "socket_timeout", "socket_connect_timeout")}
        asking |= told.sentinel_login
        hosts = list(told.hosts)
        sentinel = Sentinel(hosts, sentinel_kwargs=asking)  # type: ignore[no-untyped-call] # redis-py leaves it untyped
        self._sentinels = sentinel.sentinels
        self.address = f"{told.master_name} behind the Sentinels " + ", ".join(f"{host}:{port}" for host, port in hosts)
        login = {"username": told.username, "password": told.password}
        settings |= {"db": told.db} | {key: value for key, value in login.items() if value}
        client: Redis = sentinel.master_for(told.master_name, connection_class=_ToThePrimary, **settings)
        return client

    async def call(self, *command: str | int) -> Any:
        """Run one command and return its answer as redis-py reads it. StateUnavailable, StateRefused."""
        with self._translated(command[-1] if len(command) == 1 else command[1]):
            answer = self._client.execute_command(*command)  # type: ignore[no-untyped-call] # redis-py leaves it untyped
            return await answer

    async def run(self, script: str, keys: list[str], *args: str | int) -> Any:
        """Run a script by its hash, or in full where the server has forgotten it. StateUnavailable, StateRefused."""
        if script not in self._scripts:
            self._scripts[script] = self._client.register_script(script)
        with self._translated(keys[0]):
            return await self._scripts[script](keys=keys, args=args)

    async def aclose(self) -> None:
        """Close all connections."""
        for client in (self._client, *self._sentinels):
            await client.aclose()

    @contextmanager
    def _translated(self, key: str | int) -> Iterator[None]:
        task = asyncio.current_task()
        cancelled = task.cancelling() if task else 0
        try:
            yield
        except UnicodeDecodeError as error:
            raise StateRefused(f"the state server {self.address} " + _STAYS["WRONGTYPE"].format(key=key)) from error
        except (exceptions.RedisError, OSError) as error:
            code = next((code for kind, code in _CODES if isinstance(error, kind)), None)
            if code is None:
                found = _IN_WORDS.search(str(error))
                if found is None:
                    raise  # a mistake in a command: a bug, not the server's state
                code = found[0]
            if "CERTIFICATE_VERIFY_FAILED" in str(error):
                code = "CERTIFICATE"
            words = str(error)[:_EXCERPT].rstrip(".")
            if code in _PASSES:
                raise StateUnavailable(
                    f"the state server {self.address} " + _PASSES[code].format(words=words)
                ) from error
            told = _STAYS[code].format(words=words, key=key)
            raise StateRefused(f"the state server {self.address} {told}") from error
        except RuntimeError as error:
            if _CLOSED not in str(error):
                raise
            told = _PASSES["SILENT"].format(words="the connection is closed")
            raise StateUnavailable(f"the state server {self.address} {told}") from error
        # Python 3.11's wait_for, by which redis-py sends, forgets a cancellation that comes while it ends
        if task and task.cancelling() > cancelled:
            raise asyncio.CancelledError


def _pool(url: str, settings: dict[str, Any]) -> BlockingConnectionPool:
    if url.count("://") != 1:
        raise StateRefused("the state needs one server's URL; several are for sentinel:// alone")
    for pattern, name in _OTHER_NAMES:
        url = re.sub(pattern, name, url)
    url = re.sub(r"\bssl_cert_reqs=\w+", lambda found: found[0].lower(), url)
    try:
        pool = BlockingConnectionPool.from_url(
            url, **({"max_connections": _CONNECTIONS, "timeout": _WAIT_FOR_CONNECTION} | settings)
        )
        pool.connection_class(**pool.connection_kwargs)  # finds unknown options now, not at the first command
    except (ValueError, TypeError, exceptions.RedisError):
        raise _not_an_address() from None  # its words may hold a part of the password
    return pool


def _not_an_address() -> StateRefused:
    return StateRefused(
        "the URL of the state is none of a Redis or Valkey server: expected redis://host:port/0, rediss://, unix:// or "
        "sentinel://, with options that redis-py knows; a broker of another kind needs [broker] state_url beside it"
    )


def _address(told: Mapping[str, Any]) -> str:
    return str(told["path"]) if "path" in told else f"{told.get('host', 'localhost')}:{told.get('port', 6379)}"
