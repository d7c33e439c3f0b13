"""Debian's Redis over TLS, with an authority of the site's own."""

from pathlib import Path

from tests.integration.conftest import MakeSite
from tests.support.certificate import own_certificate
from tests.support.crew import Crew, calls
from tests.support.redis_server import RedisServer
from tests.support.waiting import wait_for
from tests.support.xivo import SimulatedXivo
from tests.system.test_promises import audit


def test_a_worker_archives_over_tls(make_site: MakeSite, tmp_path: Path) -> None:
    """With the authority's file in the URL messages and state go over TLS; nothing else is listened on."""
    certificate, _ = own_certificate(tmp_path)
    with RedisServer(tmp_path / "redis", certificate=certificate) as redis:
        site = make_site({"hq": SimulatedXivo(calls(5))}, broker=redis.url, runtime={"processes": 2})
        with Crew(site) as crew:
            crew.worker()
            crew.poll()
            crew.archives(5)
            assert len(audit(site)) == 5
            assert site.callvault("status").exit_code == 0


def test_a_certificate_of_somebody_else_is_refused(make_site: MakeSite, tmp_path: Path) -> None:
    """`check` and `health` say what is wrong with it and what to write; a worker waits and says the same."""
    (tmp_path / "other").mkdir()
    certificate, _ = own_certificate(tmp_path)
    other, _ = own_certificate(tmp_path / "other")
    with RedisServer(tmp_path / "redis", certificate=certificate) as redis:
        url = redis.url.replace(str(certificate), str(other))
        site = make_site({"hq": SimulatedXivo(calls(1))}, broker=url, runtime={"processes": 2})
        sentence = f"127.0.0.1:{redis.port} shows a certificate that is not trusted"
        for verb in ("check", "health"):
            result = site.callvault(verb)
            assert result.exit_code == 4
            assert sentence in result.output
            assert "ssl_ca_certs=/path/to/ca.pem" in result.output
        with Crew(site) as crew:
            crew.start("-m", "tasks", "worker")
            wait_for(crew.logged("certificate verify failed"), "the worker says why it waits")
