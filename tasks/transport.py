"""Redis as Celery's broker, with two things put right: a worker whose broker is in trouble waits for it and goes on.

A task that ends in the moment in which the connection is lost is acknowledged on a channel that was closed with it.
kombu 5.7.0 then asks the closed connection for its address, and the AttributeError ends the worker. Here it is the
connection error that it is: Celery logs it, goes on, and the message comes again.

A Redis that is out of memory, or became a replica, would end the worker too. Here that counts as a lost connection:
the worker reconnects until it can go on. A message that was on its way is lost then, and the next poll makes up for it.
"""

from typing import Any

from kombu.transport import TRANSPORT_ALIASES
from kombu.transport import redis as kombu_redis
from redis import exceptions

_PASSING = (exceptions.OutOfMemoryError, exceptions.ReadOnlyError, exceptions.MasterDownError)


class _Guarded(kombu_redis.Channel):
    def _connparams(self, asynchronous: bool = False) -> dict[str, Any]:
        transport: Any = self.connection  # it may be None, as may its client, whatever the stubs say
        if transport is None or transport.client is None:
            raise exceptions.ConnectionError("this channel was closed with its connection")
        told: dict[str, Any] = super()._connparams(asynchronous)  # type: ignore[misc] # the stubs do not know it
        return told


class Transport(kombu_redis.Transport):
    """Celery's redis:// and rediss://."""

    Channel = _Guarded
    connection_errors = (*kombu_redis.Transport.connection_errors, *_PASSING)


class _GuardedSentinel(_Guarded, kombu_redis.SentinelChannel):
    pass


class SentinelTransport(kombu_redis.SentinelTransport):
    """Celery's sentinel://."""

    Channel = _GuardedSentinel
    connection_errors = Transport.connection_errors


def register() -> None:
    """Have kombu use these wherever an address of the kind is given."""
    here = Transport.__module__
    TRANSPORT_ALIASES.update(
        redis=f"{here}:Transport", rediss=f"{here}:Transport", sentinel=f"{here}:SentinelTransport"
    )
