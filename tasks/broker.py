"""Which broker a process talks to, and how the two libraries that do are told: Celery's URL, TLS and transport
options, and the URL of the shared state. The broker that `callvault up` brings along is `tasks.embedded`.
"""

import ssl
from typing import Any
from urllib.parse import parse_qs, urlsplit

from kombu import Connection
from pydantic import SecretStr

from config.sentinel import is_sentinel, read_sentinels
from config.settings import Broker, Settings
from tasks import embedded

VISIBILITY_TIMEOUT = 3600
"""Seconds after which Redis hands a message that nobody acknowledged to another worker."""

_BRIEFLY = 4  # seconds for each step of a brief connection
_REDIS = ("redis", "rediss", "redis+socket", "sentinel")
_RABBITMQ = ("amqp", "amqps")


class BrokerError(Exception):
    """There is no broker that can be used; the message says what to do and holds no password."""


def with_broker(settings: Settings) -> Settings:
    """Return the settings with a broker in any case: the configured one, or that of the `callvault up` under way.

    BrokerError when there is neither, or the configured one cannot serve.
    """
    if settings.broker is None:
        url = embedded.address(settings.runtime.state_dir)
        if url is None:
            raise BrokerError(
                f"no [broker] is configured and no `callvault up` runs one in {settings.runtime.state_dir}: "
                "start `callvault up`, or give a [broker] url"
            )
        return settings.model_copy(update={"broker": Broker(url=SecretStr(url))})
    check(settings.broker)
    return settings


def check(broker: Broker) -> None:
    """Raise BrokerError where the broker's URL cannot work, before anything connects to it."""
    url = broker.url.get_secret_value()
    scheme = _scheme(url)
    if "cluster" in scheme:
        raise BrokerError(
            f"[broker] url begins with {scheme}://, but Celery's queues need one Redis server: a cluster splits them. "
            "Give a single server, or the single-shard endpoint of a managed service"
        )
    if scheme not in _REDIS + _RABBITMQ:
        found = f"begins with {scheme}://" if scheme else "has no scheme"
        raise BrokerError(f"[broker] url {found}; expected redis://, rediss://, sentinel://, amqp:// or amqps://")
    if scheme in _RABBITMQ and broker.state_url is None:
        raise BrokerError(
            f"[broker] url is {scheme}://, which holds messages only: add state_url = a redis:// or rediss:// URL, for "
            "leases, permits and watermarks"
        )
    for told in filter(None, (broker.url, broker.state_url)):
        if is_sentinel(told.get_secret_value()):
            _check_sentinels(told.get_secret_value())
            continue
        query = parse_qs(urlsplit(told.get_secret_value()).query)
        if any("required" not in value.lower() for value in query.get("ssl_cert_reqs", ())):
            raise BrokerError(
                "[broker] turns the check of the server's certificate off with ssl_cert_reqs: leave it out, and name "
                "your own authority with ssl_ca_certs=/path/to/ca.pem"
            )


def _check_sentinels(url: str) -> None:
    try:
        read_sentinels(url)
    except ValueError as error:
        raise BrokerError(f"[broker] has an address of Sentinels that cannot be used: {error}") from None


def broker_url(settings: Settings) -> str:
    """Return the URL for messages, password included. The settings are those of `with_broker`."""
    return _broker(settings).url.get_secret_value()


def celery_url(url: str) -> str:
    """Return the URL as Celery wants it: its own way for Sentinels, which it takes turns in asking."""
    return ";".join(read_sentinels(url).urls()) if is_sentinel(url) else url


def state_url(settings: Settings) -> str:
    """Return the URL for the shared state, password included. The settings are those of `with_broker`."""
    broker = _broker(settings)
    return (broker.state_url or broker.url).get_secret_value()


def redis_urls(settings: Settings) -> list[str]:
    """Return the URLs, passwords included, of every Redis that messages or state lie in."""
    urls = (state_url(settings), broker_url(settings))
    return list(dict.fromkeys(url for url in urls if _scheme(url) not in _RABBITMQ))


def transport_options(url: str, namespace: str) -> dict[str, Any]:
    """Return what kombu's transport is told; each kind of broker knows its own options only."""
    if _scheme(url) in _RABBITMQ:
        return {"confirm_publish": True}
    options = {
        "visibility_timeout": VISIBILITY_TIMEOUT,
        "global_keyprefix": f"callvault:{namespace}:",
        "health_check_interval": 25,
        "socket_keepalive": True,
        "socket_timeout": 30,  # above the blocking pop's one second, or idle workers would flap
        "socket_connect_timeout": 5,
        "retry_on_timeout": True,
        "client_name": "callvault",
    }
    return options | _sentinel_options(url) if is_sentinel(url) else options


def _sentinel_options(url: str) -> dict[str, Any]:
    told = read_sentinels(url)
    asking = {"socket_timeout": 5, "socket_connect_timeout": 5, **told.sentinel_login}
    return {"master_name": told.master_name, "sentinel_kwargs": asking}


def brief_connection(settings: Settings) -> Connection:
    """Return a connection, not open yet, for somebody who has a few seconds. The settings are those of `with_broker`.

    What a worker waits for patiently, such as a server that takes connections and then says nothing, is given up.
    """
    url = broker_url(settings)
    if _scheme(url) in _RABBITMQ:
        options: dict[str, Any] = {"read_timeout": _BRIEFLY, "write_timeout": _BRIEFLY}
    else:
        options = {"socket_timeout": _BRIEFLY, "socket_connect_timeout": _BRIEFLY, "retry_on_timeout": False}
    return Connection(
        celery_url(url),
        ssl=tls(url) or False,
        transport_options=transport_options(url, settings.archive.namespace) | options,
        connect_timeout=_BRIEFLY,
    )


def queue_prefix(url: str, namespace: str) -> str:
    """Return what the queues' names begin with: RabbitMQ has no prefix for keys, and two archives may share it."""
    return f"callvault.{namespace}." if _scheme(url) in _RABBITMQ else ""


def tls(url: str) -> dict[str, Any] | None:
    """Return the TLS options for Celery, which would not check certificates by itself; None where there is no TLS."""
    match _scheme(url):
        case "rediss":
            return {"ssl_cert_reqs": ssl.CERT_REQUIRED}
        case "amqps":
            # without a server_hostname kombu would not send, nor py-amqp check, the name; None means "the URL's"
            return {"context": {"check_hostname": True}, "server_hostname": None}
        case _:
            return None


def _broker(settings: Settings) -> Broker:
    if settings.broker is None:
        raise BrokerError("these settings have no broker yet: pass them through with_broker first")
    return settings.broker


def _scheme(url: str) -> str:
    scheme, found, _ = url.partition("://")
    return scheme.lower() if found else ""  # what has no scheme may be a password
