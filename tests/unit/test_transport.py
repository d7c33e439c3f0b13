"""Redis as Celery's broker: what the transport of kombu's own gets wrong is put right, and no more."""

from typing import Any

import pytest
import redis
from kombu import Connection
from kombu.transport import resolve_transport
from kombu.transport.redis import Channel, SentinelChannel

from tasks import transport
from tests.support.valkey import Valkey


def test_each_kind_of_address_gets_it() -> None:
    """Single servers, with and without TLS, and Sentinels."""
    transport.register()
    kinds = {scheme: resolve_transport(scheme) for scheme in ("redis", "rediss", "sentinel")}
    assert kinds == {
        "redis": transport.Transport,
        "rediss": transport.Transport,
        "sentinel": transport.SentinelTransport,
    }
    assert issubclass(transport.Transport.Channel, Channel)
    assert issubclass(transport.SentinelTransport.Channel, SentinelChannel)


@pytest.mark.parametrize("closed", ["channel", "transport"])
def test_acknowledging_on_a_closed_channel_is_a_connection_error(valkey: Valkey, closed: str) -> None:
    """It is one of those Celery goes on from; kombu's own is an AttributeError, which ends the worker."""
    with Connection(valkey.url, transport=transport.Transport) as connection:
        channel: Any = connection.channel()
        errors = connection.connection_errors
        channel._put("poll", {"properties": {}})
        if closed == "channel":
            channel.close()
        else:
            connection.transport.client = None
        channel._disconnect_pools()
        with pytest.raises(redis.ConnectionError, match="was closed with its connection") as caught:
            channel.qos.ack("tag")
        assert isinstance(caught.value, errors)
        if closed == "transport":
            connection.transport.client = connection


@pytest.mark.parametrize("error", [redis.OutOfMemoryError, redis.ReadOnlyError])
def test_what_passes_is_waited_for(error: type[Exception]) -> None:
    """A full server, or one that has just become a replica, ends no worker."""
    for kind in (transport.Transport, transport.SentinelTransport):
        assert issubclass(error, kind.connection_errors)
