"""`callvault hold` on a real S3 server (Ceph RGW) and on moto: placed, written under, carried through, released."""

import asyncio
import json
import threading
from typing import Any

import pytest
from botocore.exceptions import ClientError
from rich.console import Console

import tasks.cli.hold_carry
import worker.sweep
from config.clock import SystemClock
from storage.errors import StoreUnavailable
from storage.state_redis import RedisState
from storage.swept import Swept
from tests.integration.conftest import MakeSite
from tests.integration.test_retention_run import YESTERDAY, calls
from tests.support.s3 import eyes, new_bucket
from tests.support.simulator import Call
from tests.support.site import Site
from tests.support.valkey import Valkey
from tests.support.xivo import SimulatedXivo

ADD = ("hold", "add", "smith", "--reason", "Smith v. Acme")


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not wait for workers that may not know yet: there are none, and the unit tests have a clock in hand."""
    monkeypatch.setattr(worker.sweep, "SETTLED", 0.0)
    monkeypatch.setattr(worker.sweep, "FRESH", 0.0)
    monkeypatch.setattr(tasks.cli.hold_carry, "_LOOK_EVERY", 0.0)
    monkeypatch.setenv("CALLVAULT_CONFIG", "")  # the verb sets it for Celery; with the test it goes


@pytest.fixture(params=["rgw", "s3"])
def server(request: pytest.FixtureRequest) -> str:
    """Return the URL of each server in turn."""
    url: str = request.getfixturevalue(request.param)
    return url


@pytest.fixture
def site(make_site: MakeSite, s3: str) -> Site:
    """Return a site whose bucket can hold, with two recordings and a gap."""
    return site_of(make_site, s3)


def site_of(make_site: MakeSite, url: str, **more: Any) -> Site:
    """Return such a site on a server."""
    site = make_site({"hq": SimulatedXivo(calls())}, archive=new_bucket(url, object_lock=True), **more)
    site.runtime = {"part_bytes": 5 * 1024 * 1024}
    return site


def holds(site: Site) -> dict[str, str]:
    """Return the legal hold of every version of what is about recordings, as boto3 sees it."""
    s3, bucket = eyes(site.archive), site.archive.bucket
    found = {}
    for version in s3.list_object_versions(Bucket=bucket)["Versions"]:
        if "/source=" in version["Key"]:
            where = {"Bucket": bucket, "Key": version["Key"], "VersionId": version["VersionId"]}
            try:
                status = s3.get_object_legal_hold(**where)["LegalHold"].get("Status", "OFF")
            except ClientError:  # so it is told of a version that never had one
                status = "OFF"
            found[f"{version['Key']} {version['VersionId']}"] = status
    return found


def told(site: Site, *arguments: str, code: int = 0) -> dict[str, Any]:
    """Run a verb with `--json` and return its one document."""
    result = site.callvault(*arguments, "--json")
    assert result.exit_code == code, result.output
    document: dict[str, Any] = json.loads(result.stdout)
    return document


def test_from_placed_to_released(make_site: MakeSite, server: str) -> None:
    """What is there and what comes, media in one piece and in parts, is held, cannot be deleted, and is free again."""
    site = site_of(make_site, server)
    site.run()
    placed = told(site, *ADD, "--source", "h*")
    assert (placed["active"], placed["archive"]["recordings"], placed["archive"]["held"]) == (True, 4, 7)
    assert set(holds(site).values()) == {"ON"}
    site.sources["hq"].add(Call(number=11, started_at=YESTERDAY, from_="1001", to="1002"))
    site.sources["hq"].add(Call(number=12, started_at=YESTERDAY, from_="1001", to="1002", media=calls()[1].media))
    site.run()
    found = holds(site)
    assert (len(found), set(found.values())) == (11, {"ON"})
    key, _, version = next(iter(found)).partition(" ")
    with pytest.raises(ClientError):
        eyes(site.archive).delete_object(Bucket=site.archive.bucket, Key=key, VersionId=version)
    released = told(site, "hold", "release", "smith", "--reason", "settled")
    assert (released["active"], released["archive"]["freed"]) == (False, 11)
    assert set(holds(site).values()) == {"OFF"}
    eyes(site.archive).delete_object(Bucket=site.archive.bucket, Key=key, VersionId=version)
    assert len(holds(site)) == 10


def test_what_it_says_to_people(site: Site) -> None:
    """Each verb: what is in force, what was done, who did it and why."""
    assert "no hold was ever placed" in site.callvault("hold", "list").output
    said = site.callvault(*ADD, "--number", "5550*", "--from", "2020-01-01T00:00:00Z")
    assert said.exit_code == 0, said.output
    assert "smith is in force" in said.output
    assert "nothing in the archive is in its scope yet" in said.output
    assert "no source" not in said.output
    site.run()
    said = site.callvault("hold", "apply", "smith")
    assert "1 recordings in scope; of their versions 0 held, 0 freed, 2 as they should be" in said.output
    assert "smith: in force since" in site.callvault("hold", "list").output
    shown = site.callvault("hold", "show", "smith").output
    assert "scope: from 2020-01-01T00:00:00Z, number 5550*" in shown
    assert "Smith v. Acme" in shown
    assert "the archive was gone through by" in shown
    said = site.callvault("hold", "release", "smith", "--reason", "settled out of court")
    assert "smith is released" in said.output
    shown = site.callvault("hold", "show", "smith").output
    assert "settled out of court" in shown
    assert "smith: released" in site.callvault("hold", "list").output
    (listed,) = told(site, "hold", "list")["holds"]
    assert (listed["name"], listed["active"]) == ("smith", False)
    document = told(site, "hold", "show", "smith")
    assert (document["scope"]["number"], document["released"]["reason"]) == ("5550*", "settled out of court")
    assert document["archive"]["done"]


def test_recordings_by_name(site: Site) -> None:
    """Those named, and no other; one that is not there is held when it comes, and a source nobody knows is told."""
    site.run()
    ids = [call.id for call in site.sources["hq"].calls[:3]]
    names = [f"hq/{ids[0]}", f"hqq/{ids[0]}", *(f"hq/x{number}" for number in range(5))]
    said = site.callvault(*ADD, *(word for name in names for word in ("--recording", name)))
    assert said.exit_code == 0, said.output
    assert 'no source hqq is configured or in the archive; did you mean "hq"' in said.output
    assert sorted(holds(site).values()) == ["OFF"] * 5 + ["ON"] * 2
    assert "and 2 more" in site.callvault("hold", "show", "smith").output
    said = site.callvault("hold", "add", "b", "--reason", "x", "--source", "branch")
    assert "no source branch is configured or in the archive; known are hq" in said.output


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "which recordings?"),
        (("--from", "2026-03-01"), "write 2026-03-01T00:00:00Z for UTC"),
        (("--to", "2026-03-01T10:00:00"), "end it in Z for UTC"),
        (("--to", "soon"), "write a time such as"),
        (("--from", "2026-03-02T00:00:00Z", "--to", "2026-03-01T00:00:00Z"), "is not before to"),
        (("--recording", "hq/1", "--queue", "x"), "nothing else goes with them"),
        (("--recording", "1"), "is not SOURCE/ID"),
        (("--queue", ""), "an empty pattern fits no call"),
        (("--source", "hq", "--here", "--detach"), "write one of the two"),
    ],
)
def test_a_hold_that_nobody_can_mean_is_refused(site: Site, words: tuple[str, ...], said: str) -> None:
    """With what to write instead; nothing is written, exit code 2."""
    result = site.callvault(*ADD, *words)
    assert (result.exit_code, result.stdout) == (2, ""), result.output
    assert said in result.output
    assert site.listing() == []


def test_what_makes_no_sense_as_things_are_is_refused(site: Site) -> None:
    """A name that is no name, one used twice, a release of what does not hold, no reason: exit code 2."""
    told(site, *ADD, "--source", "hq")
    for words, said in (
        (("add", "Smith", "--reason", "x", "--source", "hq"), "is no name for a hold"),
        (("add", "smith", "--reason", "x", "--source", "hq"), "there is a hold smith already"),
        (("add", "jones", "--reason", " ", "--source", "hq"), "--reason is empty"),
        (("add", "jones", "--source", "hq"), "--reason"),
        (("release", "smth", "--reason", "x"), 'did you mean "smith"'),
        (("apply", "jones"), "there is no hold jones"),
        (("show", "jones"), "there is no hold jones"),
    ):
        result = site.callvault("hold", *words)
        assert result.exit_code == 2, result.output
        assert said in result.output


def test_a_bucket_that_cannot_hold(make_site: MakeSite) -> None:
    """It is refused, with how to make one that can; exit code 4."""
    site = make_site({"hq": SimulatedXivo([])})
    result = site.callvault(*ADD, "--source", "hq")
    assert result.exit_code == 4
    assert "--object-lock-enabled-for-bucket" in result.output
    assert "--object-lock-enabled-for-bucket" in told(site, *ADD, "--source", "hq", code=4)["errors"][0]
    assert site.listing() == []


def test_trouble_on_the_way_leaves_the_hold_in_force(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says how to go on, and what was done so far is kept; exit code 4."""

    async def down(*_: Any, **__: Any) -> None:
        raise StoreUnavailable("bucket down")

    with monkeypatch.context() as patch:
        patch.setattr(tasks.cli.hold_carry, "sweep", down)
        result = site.callvault(*ADD, "--source", "hq")
    assert result.exit_code == 4
    assert "bucket down. Go on with `callvault hold apply smith`" in result.output
    assert "smith is in force" in result.output
    assert "has not been gone through yet" in site.callvault("hold", "show", "smith").output
    with monkeypatch.context() as patch:
        patch.setattr(tasks.cli.hold_carry, "sweep", down)
        document = told(site, "hold", "release", "smith", "--reason", "x", code=4)
    assert "smith is released, but" in document["errors"][0]


def test_what_could_not_be_held_is_named(site: Site) -> None:
    """Exit code 3."""
    site.run()
    key = next(key for key in site.listing() if key.endswith(".json") and "/recordings/" in key)
    eyes(site.archive).put_object(Bucket=site.archive.bucket, Key=key, Body=b"no sidecar")
    result = site.callvault(*ADD, "--source", "hq")
    assert result.exit_code == 3
    assert f"{key} cannot be read" in result.output


def test_a_way_that_is_not_over(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Show tells how far it is, and of many failures how many there are."""
    told(site, *ADD, "--source", "hq")
    half = Swept(
        name="smith", of="placed", began_at=YESTERDAY, at=YESTERDAY, days=2, of_days=5, failed=3, failures=("a", "b")
    )

    async def found(*_: Any) -> Swept:
        return half

    monkeypatch.setattr("tasks.cli.hold.sweep.swept", found)
    shown = site.callvault("hold", "show", "smith").output
    assert "day 2 of 5" in shown
    assert "and 1 more" in shown


def test_the_workers_do_it_where_a_broker_is(site: Site, valkey: Valkey, monkeypatch: pytest.MonkeyPatch) -> None:
    """The work goes into the queue and is looked on at; `--here` does without, `--detach` does not wait."""
    valkey.flush()
    site.broker = valkey.url
    sent: list[str] = []
    monkeypatch.setattr(Console, "is_terminal", property(lambda _: True))

    def noting(*notes: dict[str, str]) -> Any:
        def sending(name: str) -> None:
            sent.append(name)

            async def work() -> None:
                state = RedisState(valkey.url, site.archive.namespace, SystemClock())
                for fields in notes:
                    await state.note(f"hold:{name}", fields)
                    await asyncio.sleep(0.1)
                await state.aclose()

            threading.Thread(target=lambda: asyncio.run(work())).start()

        return sending

    def note(**fields: Any) -> dict[str, str]:
        swept = Swept(name="smith", of="placed", began_at=YESTERDAY, at=YESTERDAY, recordings=7, **fields)
        return {"swept": swept.model_dump_json(), "done": "yes" if swept.done else "", "error": ""}

    monkeypatch.setattr(tasks.cli.hold_carry, "send_hold", noting(note(days=1, of_days=2), note(look=2, done=True)))
    assert told(site, *ADD, "--source", "hq")["archive"]["recordings"] == 7
    assert told(site, "hold", "apply", "smith", "--here")["archive"]["recordings"] == 0
    assert sent == ["smith"]
    monkeypatch.setattr(tasks.cli.hold_carry, "send_hold", sent.append)
    assert told(site, "hold", "apply", "smith", "--detach")["archive"] is None
    assert sent == ["smith"] * 2
    trouble = {"swept": "", "done": "yes", "error": "bucket down"}
    monkeypatch.setattr(tasks.cli.hold_carry, "send_hold", noting(trouble))
    assert "bucket down" in told(site, "hold", "apply", "smith", code=4)["errors"][0]
    monkeypatch.setattr(tasks.cli.hold_carry, "send_hold", lambda _: valkey.flush())
    assert "has forgotten the work" in told(site, "hold", "apply", "smith", code=4)["errors"][0]


def test_without_a_broker_nothing_can_be_left_to_workers(site: Site) -> None:
    """The hold is in force all the same."""
    document = told(site, *ADD, "--source", "hq", "--detach", code=4)
    assert "no [broker] is configured" in document["errors"][0]
    assert document["active"]
