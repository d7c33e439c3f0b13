"""`callvault retry` as its user calls it: simulated phone systems, S3 over HTTP, exit codes and what is printed."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from config.clock import SystemClock
from storage.state_local import LocalState
from tests.integration.conftest import MakeSite
from tests.integration.test_run import VENDORS, calls
from tests.support.simulator import Simulator
from tests.support.site import Site
from tests.support.valkey import Valkey
from tests.support.xivo import SimulatedXivo


@pytest.fixture
def gapped(make_site: MakeSite) -> Callable[..., Site]:
    """Return a function that sets up a site where the media of the first two calls are forbidden: two gaps."""

    def making(kind: type[Simulator] = SimulatedXivo, **more: Any) -> Site:
        site = make_site({"hq": kind(calls(kind.vendor))}, **more)
        simulator = site.sources["hq"]
        for call in simulator.calls[:2]:
            simulator.fault("status", recording=call.id, status=403)
        assert site.run()[1]["gaps"] == 2
        simulator.faults.clear()
        return site

    return making


def retry(site: Site, *arguments: str) -> tuple[int, dict[str, Any]]:
    """Run `callvault retry --json` on hq; return exit code and document."""
    result = site.callvault("retry", "--source", "hq", "--json", *arguments)
    assert not result.exception or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, json.loads(result.stdout)


@pytest.mark.parametrize("kind", VENDORS, ids=lambda kind: kind.vendor)
def test_gaps_of_each_phone_system_are_tried_again(gapped: Callable[..., Site], kind: type[Simulator]) -> None:
    """One by its id, then all; `status` counts what is missing still, and the records stay."""
    site = gapped(kind)
    first = site.gaps()[0]["recording_id"]
    code, told = retry(site, "--gap", first)
    assert (code, told["archived"], told["gaps"], told["errors"]) == (0, 1, 0, [])
    assert json.loads(site.callvault("status", "--json").stdout)["sources"]["hq"]["gaps"] == 1
    code, told = retry(site, "--all")
    assert (code, told["on_record"], told["archived"], told["held"]) == (0, 1, 1, 1)
    assert json.loads(site.callvault("status", "--json").stdout)["sources"]["hq"]["gaps"] == 0
    assert len(site.gaps()) == 2
    code, report = site.run()
    assert (code, report["held"], report["gaps_on_record"]) == (0, 6, 0)
    assert retry(site, "--all")[0] == 0


def test_what_is_missing_still_is_told(gapped: Callable[..., Site]) -> None:
    """Exit code 3, and for people a line for each with its reason."""
    site = gapped()
    site.sources["hq"].fault("status", recording=site.sources["hq"].calls[0].id, status=403)
    result = site.callvault("retry", "--source", "hq", "--all")
    assert result.exit_code == 3
    assert "hq: 2 gaps, 1 archived now, 1 still gaps\n" in result.output
    assert f"{site.sources['hq'].calls[0].id}: forbidden: " in result.output
    assert "1 held before" in site.callvault("retry", "--source", "hq", "--all").output


def test_a_row_without_a_start_is_not_tried(make_site: MakeSite) -> None:
    """Exit code 3 and what to do about it."""
    made = calls("xivo")
    made[0].extra["malformed"] = "no_start"
    site = make_site({"hq": SimulatedXivo(made)})
    site.run()
    code, told = retry(site, "--all")
    assert (code, told["not_tried"]) == (3, 1)
    assert "no readable start" in told["errors"][0]
    assert "1 not tried" in site.callvault("retry", "--source", "hq", "--all").output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--source", "hq"], "exactly one of the two"),
        (["--source", "hq", "--all", "--gap", "x"], "exactly one of the two"),
        (["--source", "nowhere", "--all"], "no such source; the configuration has hq"),
        (["--source", "hq", "--gap", "nobody"], "hq has no gap record of this recording"),
    ],
)
def test_what_makes_no_sense_is_refused(make_site: MakeSite, arguments: list[str], words: str) -> None:
    """Exit code 2 and a sentence that says what to write."""
    site = make_site({"hq": SimulatedXivo([])})
    result = site.callvault("retry", *arguments)
    assert result.exit_code == 2
    assert words in result.output


def test_trouble_is_told_by_the_exit_code(gapped: Callable[..., Site]) -> None:
    """4 where the phone system or the bucket cannot be used; 3 where another process is at the source."""
    site = gapped()
    state = LocalState(site.folder / "state", site.archive.namespace, SystemClock())
    lease = asyncio.run(state.lease("run-hq", 60))
    assert lease is not None
    code, told = retry(site, "--gap", "x")
    assert (code, "under way" in told["errors"][0]) == (3, True)
    asyncio.run(lease.release())
    site.sources["hq"].fault("status", purpose="any", status=401)
    code, told = retry(site, "--all")
    assert (code, told["not_tried"]) == (4, 2)
    site.archive = site.archive.model_copy(update={"bucket": "nowhere-5550100"})
    assert retry(site, "--all")[0] == 4


def test_beside_workers_their_state_is_used(gapped: Callable[..., Site], valkey: Valkey) -> None:
    """Caps count the requests of both; a broker that is down stops nobody."""
    valkey.flush()
    site = gapped()
    site.broker = valkey.url
    code, told = retry(site, "--gap", site.gaps()[0]["recording_id"])
    assert (code, told["archived"]) == (0, 1)
    with valkey.client() as asked:
        assert asked.keys(f"callvault:{site.archive.namespace}:held:hq:*")
    site.broker = "redis://127.0.0.1:1/0"
    code, told = retry(site, "--all")
    assert (code, told["archived"]) == (0, 1)
