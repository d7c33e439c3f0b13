"""Which broker is talked to, and how Celery and the state are told."""

import ssl
from pathlib import Path

import pytest
from kombu import Connection
from pydantic import SecretStr

from config.settings import Broker
from tasks import broker
from tasks.broker import BrokerError
from tasks.embedded import EmbeddedValkey
from tests.support.settings import NOBODY, settings

AMQP = "amqp://user:hush@127.0.0.1:1/calls"
SENTINELS = "sentinel://us%40er:hu%2Fsh@h1/3?master_name=calls&sentinel_password=quiet;sentinel://[::1]:26380"


def test_a_configured_redis_serves_for_messages_and_state(tmp_path: Path) -> None:
    """One URL is enough where it is Redis."""
    told = broker.with_broker(settings(tmp_path))
    assert broker.broker_url(told) == broker.state_url(told) == NOBODY


def test_rabbitmq_has_its_state_elsewhere(tmp_path: Path) -> None:
    """Messages go to RabbitMQ, leases and watermarks to the Redis beside it."""
    told = broker.with_broker(settings(tmp_path, url=AMQP, state_url=NOBODY))
    assert (broker.broker_url(told), broker.state_url(told)) == (AMQP, NOBODY)


def test_without_a_configured_broker_that_of_up_is_found(tmp_path: Path) -> None:
    """A worker, a backfill or a health check on the same machine finds the embedded broker of a running `up`."""
    with EmbeddedValkey(tmp_path) as valkey:
        assert broker.broker_url(broker.with_broker(settings(tmp_path, url=None))) == valkey.url


def test_without_any_broker_the_message_says_what_to_do(tmp_path: Path) -> None:
    """No [broker] and no `up`: both ways out are named."""
    with pytest.raises(BrokerError, match=r"no \[broker\] is configured .* start `callvault up`, or give"):
        broker.with_broker(settings(tmp_path, url=None))
    with pytest.raises(BrokerError, match="pass them through with_broker"):
        broker.broker_url(settings(tmp_path, url=None))


@pytest.mark.parametrize(
    ("url", "state_url", "words"),
    [
        ("redis+cluster://:hush@h/0", None, "Celery's queues need one Redis server: a cluster splits them"),
        ("http://:hush@h/0", NOBODY, "begins with http://; expected redis://"),
        ("user:hush@h", None, "has no scheme; expected redis://, rediss://, sentinel://, amqp:// or amqps://"),
        ("sentinel://:hush@h/0", None, "it lacks the name of the primary"),
        (AMQP, "sentinel://:hush@h:x/0?master_name=n", "the number of the database cannot be read"),
        (AMQP, None, "add state_url"),
        ("rediss://:hush@h/0?ssl_cert_reqs=none", None, "leave it out"),
        (AMQP, "rediss://:hush@h/0?ssl_cert_reqs=CERT_OPTIONAL", "ssl_ca_certs="),
    ],
)
def test_brokers_that_cannot_serve_are_refused(url: str, state_url: str | None, words: str) -> None:
    """Each is refused before a connection is made, with a way out, and without its password."""
    with pytest.raises(BrokerError) as caught:
        broker.check(Broker(url=SecretStr(url), state_url=SecretStr(state_url) if state_url else None))
    assert words in str(caught.value)
    assert "hush" not in str(caught.value)


def test_a_certificate_may_be_required_in_so_many_words() -> None:
    """Naming one's own authority, and asking for the check that is made anyway, is allowed."""
    broker.check(Broker(url=SecretStr("rediss://h/0?ssl_cert_reqs=required&ssl_ca_certs=/ca.pem")))
    broker.check(Broker(url=SecretStr(SENTINELS)))


def test_redis_over_tls_always_checks_certificates() -> None:
    """Celery alone would not: what kombu makes of our URL and options requires a certificate."""
    url = "rediss://:hush@example.net/0"
    assert Connection(url, ssl=broker.tls(url) or False).ssl == {"ssl_cert_reqs": ssl.CERT_REQUIRED}
    own = url + "?ssl_ca_certs=/ca.pem"  # redis-py requires a certificate by default
    assert Connection(own, ssl=broker.tls(own) or False).ssl == {"ssl_ca_certs": "/ca.pem"}


def test_rabbitmq_over_tls_checks_certificate_and_name() -> None:
    """The context that py-amqp makes of our options is the strict one."""
    assert broker.tls("amqps://h//") == {"context": {"check_hostname": True}, "server_hostname": None}
    assert broker.tls(AMQP) is None
    assert broker.tls(NOBODY) is None


def test_each_kind_of_broker_gets_options_it_knows() -> None:
    """Redis gets time-outs, a prefix and the visibility timeout; RabbitMQ confirms instead, and prefixes its queues."""
    redis_options = broker.transport_options(NOBODY, "abc")
    assert redis_options["global_keyprefix"] == "callvault:abc:"
    assert redis_options["visibility_timeout"] == broker.VISIBILITY_TIMEOUT
    assert redis_options["socket_timeout"] > 1, "longer than the blocking pop"
    assert broker.transport_options(AMQP, "abc") == {"confirm_publish": True}
    assert broker.queue_prefix(NOBODY, "abc") == ""
    assert broker.queue_prefix(AMQP, "abc") == "callvault.abc."


def test_sentinels_are_told_to_celery_in_its_own_way() -> None:
    """Each address holds login and database, for Celery takes turns; the name and the Sentinels' login are options."""
    url = broker.celery_url(SENTINELS)
    assert url == "sentinel://us%40er:hu%2Fsh@h1:26379/3;sentinel://us%40er:hu%2Fsh@[::1]:26380/3"
    options = broker.transport_options(SENTINELS, "abc")
    assert (options["master_name"], options["sentinel_kwargs"]["password"]) == ("calls", "quiet")
    assert options["global_keyprefix"] == "callvault:abc:"
    assert broker.celery_url(NOBODY) == NOBODY
    connection = Connection(url, transport_options=options)
    assert (connection.userid, connection.password, connection.virtual_host) == ("us@er", "hu/sh", "3")


def test_every_redis_is_known_once(tmp_path: Path) -> None:
    """What is asked of each server at start is asked of messages and state, wherever they lie."""
    assert broker.redis_urls(settings(tmp_path)) == [NOBODY]
    assert broker.redis_urls(settings(tmp_path, url=AMQP, state_url=NOBODY)) == [NOBODY]
    assert broker.redis_urls(settings(tmp_path, url="rediss://h/0", state_url=NOBODY)) == [NOBODY, "rediss://h/0"]
