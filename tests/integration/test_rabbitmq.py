"""Debian's RabbitMQ for messages, a Valkey for the state."""

from pathlib import Path

from tests.integration.conftest import MakeSite
from tests.support.crew import Crew, calls
from tests.support.rabbitmq import RabbitMQ
from tests.support.valkey import Valkey
from tests.support.xivo import SimulatedXivo
from tests.system.test_promises import audit


def test_work_goes_on_after_rabbitmq_was_away(make_site: MakeSite, tmp_path: Path, valkey: Valkey) -> None:
    """The node is stopped in mid-work and comes back: the same worker goes on, nothing is lost or doubled."""
    valkey.flush()
    phones = SimulatedXivo(calls(6))
    with RabbitMQ(tmp_path / "rabbit") as rabbit:
        site = make_site({"hq": phones}, broker=rabbit.url, state=valkey.url, runtime={"processes": 2})
        with Crew(site) as crew:
            worker = crew.worker()
            assert "answers" in site.callvault("check").output
            crew.poll()
            crew.archives(3)
            rabbit.stop()
            health = site.callvault("health").output
            assert f"FAILED  broker: amqp://127.0.0.1:{rabbit.port} does not answer" in health
            for call in calls(4, first=101):
                phones.add(call)
            rabbit.start()
            crew.poll()
            crew.archives(10)
            assert len(audit(site)) == 10
            assert worker.poll() is None, f"the worker went on by itself:\n{crew.words()}"
            assert "ok      broker: answers" in site.callvault("health").output
            assert "guest:guest" not in crew.log.read_text()
