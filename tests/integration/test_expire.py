"""`callvault retention expire` and `callvault erase` on an S3 server over HTTP: documents, exit codes, what is left."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from click.testing import Result

from config.load import load
from storage.keys import Keys, rid, utc_date
from tests.integration.conftest import MakeSite
from tests.support.s3 import eyes, new_bucket
from tests.support.simulator import Call
from tests.support.site import Site
from tests.support.valkey import Valkey
from tests.support.xivo import SimulatedXivo
from worker.vendors import vendor_keys

NOW = datetime.now(UTC).replace(microsecond=0)
POLICY = """
[retention]
mode = "governance"
default = "30d"
expire = true
expire_at_most = 3
[[retention.rules]]
name = "desk"
match = { number = "5550*" }
keep = "7y"
"""


@pytest.fixture(params=["rgw", "s3"])
def server(request: pytest.FixtureRequest) -> str:
    """Return the URL of each server in turn: a real one, and moto."""
    url: str = request.getfixturevalue(request.param)
    return url


def calls(old: int = 2) -> list[Call]:
    """Return so many calls of long ago, one of them for the rule beside, and one of yesterday."""
    found = [Call(number=n, started_at=NOW - timedelta(days=60), from_="1001", to="1002") for n in range(1, old + 1)]
    found.append(Call(number=50, started_at=NOW - timedelta(days=60), from_="5550100", to="1002"))
    found.append(Call(number=51, started_at=NOW - timedelta(days=1), from_="1001", to="1002"))
    return found


def site_of(make_site: MakeSite, s3: str, retention: str = POLICY, old: int = 2, **more: Any) -> Site:
    """Return a site with everything archived, by a policy."""
    site = make_site(
        {"hq": SimulatedXivo(calls(old))},
        archive=new_bucket(s3, object_lock=True),
        retention=retention,
        **more,
    )
    span = ("--from", (NOW - timedelta(days=90)).isoformat(), "--to", NOW.isoformat())
    code, report = site.run(*span)
    assert (code, report["archived"]) == (0, old + 2)
    return site


def told(result: Result) -> dict[str, Any]:
    """Return the one document on standard output."""
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def id_of(site: Site, number: int) -> str:
    """Return a recording's id."""
    return next(call.id for call in site.sources["hq"].calls if call.number == number)


def under(site: Site, kind: str) -> list[str]:
    """List one kind of what is in the bucket."""
    return [key for key in site.listing() if key.startswith(f"v1/{kind}/")]


def test_a_dry_run_then_a_run(make_site: MakeSite, server: str) -> None:
    """What the first names the second destroys; the ruled and the young stay; nothing is archived again."""
    site = site_of(make_site, server)
    before = site.listing()
    dry = site.callvault("retention", "expire", "--dry-run", "--json")
    assert dry.exit_code == 0, dry.output
    assert site.listing() == before
    assert [row["recording_id"] for row in told(dry)["due"]] == sorted(id_of(site, n) for n in (1, 2))
    wet = site.callvault("retention", "expire", "--json")
    assert (wet.exit_code, told(wet)["destroyed"]) == (0, 2)
    assert len(under(site, "recordings")) == 4
    assert under(site, "certificates") == told(wet)["certificates"]
    assert len(under(site, "destroyed")) == 2
    versions = eyes(site.archive).list_object_versions(Bucket=site.archive.bucket)
    assert "DeleteMarkers" not in versions
    assert len(versions["Versions"]) == 4 + 2 + 2  # the certificate twice
    span = ("--from", (NOW - timedelta(days=90)).isoformat(), "--to", NOW.isoformat())
    code, report = site.run(*span)
    assert (code, report["archived"], report["held"]) == (0, 0, 4)
    again = site.callvault("retention", "expire")
    assert (again.exit_code, again.stdout) == (0, "nothing is due\n")


def test_what_people_read(make_site: MakeSite, s3: str) -> None:
    """Figures by source, certificates, and that there is more; 3 where the limit left something."""
    site = site_of(make_site, s3, old=25)
    dry = site.callvault("retention", "expire", "--dry-run", "--limit", "3")
    assert dry.exit_code == 0
    assert "hq: 3 would be destroyed" in dry.stdout
    assert f"  hq/{id_of(site, 1)}, kept until " in dry.stdout
    assert "there is more to do: the limit is reached" in dry.stdout
    wet = site.callvault("retention", "expire", "--limit", "2")
    assert wet.exit_code == 3
    assert wet.stdout.startswith("hq: 2 destroyed, ")
    assert "certificate: v1/certificates/date=" in wet.stdout
    many = site_policy(site, "expire_at_most = 3", "expire_at_most = 30")
    dry = many.callvault("retention", "expire", "--dry-run")
    assert "  and 3 more; --json names up to a thousand" in dry.stdout


def site_policy(site: Site, old: str, new: str) -> Site:
    """Change the policy of a site."""
    assert old in site.retention
    site.retention = site.retention.replace(old, new)
    return site


def test_what_is_left_to_be_looked_at(make_site: MakeSite, s3: str) -> None:
    """A surprise is told on standard error, with 3; a certificate that was begun is announced by a dry run."""
    site = site_of(make_site, s3)
    marked = next(key for key in under(site, "recordings") if key.endswith(".wav"))
    day = marked.split("date=")[1][:10]
    eyes(site.archive).delete_object(Bucket=site.archive.bucket, Key=marked)
    eyes(site.archive).put_object(
        Bucket=site.archive.bucket,
        Key="v1/certificates/date=2026-01-01/000000-0.json",
        Body=json.dumps({
            "schema": "callvault/certificate/v1", "id": "000000-0", "state": "begun", "cause": "retention",
            "reason": None, "by": "x", "program": "x", "policy": None, "begun_at": "2026-01-01T00:00:00Z",
            "completed_at": None, "recordings": [],
        }).encode(),
    )  # fmt: skip
    dry = site.callvault("retention", "expire", "--dry-run")
    assert dry.exit_code == 3
    assert "1 certificates were begun and not completed" in dry.stdout
    assert f"a delete marker hides {marked}" in dry.stderr
    assert day in dry.stderr
    wet = site.callvault("retention", "expire", "--json")
    assert wet.exit_code == 3
    assert told(wet)["stopped"] is True


@pytest.mark.parametrize(
    ("retention", "arguments", "words"),
    [
        ('[retention]\nmode = "none"\n', ["--dry-run"], "[retention] has no mode"),
        (POLICY.replace("expire = true", "expire = false"), [], "add --dry-run to see what would be"),
        (POLICY, ["--limit", "4"], "--limit 4 is above expire_at_most, 3: it can only lower it"),
    ],
)
def test_what_makes_no_sense_is_refused(
    make_site: MakeSite, s3: str, retention: str, arguments: list[str], words: str
) -> None:
    """With 2, and what to write instead."""
    site = make_site({"hq": SimulatedXivo()}, archive=new_bucket(s3, object_lock=True), retention=retention)
    result = site.callvault("retention", "expire", *arguments)
    assert result.exit_code == 2
    assert words in result.stderr


def test_a_bucket_that_is_not_there(make_site: MakeSite, s3: str) -> None:
    """With 4, and one document all the same."""
    site = make_site({"hq": SimulatedXivo()}, archive=new_bucket(s3, object_lock=True), retention=POLICY)
    eyes(site.archive).delete_bucket(Bucket=site.archive.bucket)
    result = site.callvault("retention", "expire", "--json")
    assert result.exit_code == 4
    assert len(told(result)["errors"]) == 1
    result = site.callvault("erase", "--recording", "hq/1", "--reason", "x")
    assert (result.exit_code, result.stdout) == (4, "")
    result = site.callvault("erase", "--recording", "hq/1", "--reason", "x", "--json")
    assert result.exit_code == 4
    assert told(result)["outcome"] is None


def test_another_run_under_way_is_left_alone(make_site: MakeSite, s3: str, valkey: Valkey, raw: Any) -> None:
    """On any machine, where there is a broker; on this one where there is none."""
    site = site_of(make_site, s3, broker=valkey.url)
    raw.set(_lease_key(site), "somebody", px=60_000)
    result = site.callvault("retention", "expire")
    assert result.exit_code == 3
    assert "another expiry run is under way" in result.stderr
    raw.flushdb()
    assert site.callvault("retention", "expire").exit_code == 0


def _lease_key(site: Site) -> str:
    return f"callvault:{load(site.config, vendor_keys(), site.environ).archive.namespace}:lease:expiry"


def test_without_a_broker_that_answers_the_machines_own_state_will_do(make_site: MakeSite, s3: str) -> None:
    """Erasing is not put off because Redis is down."""
    site = site_of(make_site, s3, broker="redis://127.0.0.1:1/0")
    result = site.callvault("erase", "--recording", f"hq/{id_of(site, 1)}", "--reason", "Art. 17", "--json")
    assert result.exit_code == 0, result.output
    assert told(result)["outcome"] == "erased"


def test_erasing(make_site: MakeSite, server: str) -> None:
    """Erased, deferred, refused, missing: one document or a sentence, 0 or 3."""
    site = site_of(make_site, server)
    old, ruled, young = (id_of(site, number) for number in (1, 50, 51))
    ask = ("erase", "--reason", "Art. 17", "--recording")
    result = site.callvault(*ask, f"hq/{old}", "--json")
    assert result.exit_code == 0
    document = told(result)
    assert {**document, "certificates": []} == {
        "recording": f"hq/{old}", "outcome": "erased", "detail": f"hq/{old} is erased", "until": None, "rule": None,
        "matters": [], "certificates": [],
    }  # fmt: skip
    assert under(site, "certificates") == document["certificates"]
    result = site.callvault(*ask, f"hq/{young}")
    assert result.exit_code == 0
    assert result.stdout.startswith(f"deferred: hq/{young} is kept until ")
    assert len(under(site, "erasures")) == 2
    site_policy(site, "expire = true", "expire = false")
    result = site.callvault(*ask, f"hq/{ruled}", "--json")
    assert (result.exit_code, told(result)["outcome"], told(result)["rule"]) == (3, "refused", "desk")
    assert told(result)["until"].endswith("Z")
    result = site.callvault(*ask, "hq/nobody")
    assert result.exit_code == 3
    assert result.stderr.startswith("missing: hq/nobody is not in the archive")
    sidecar = Keys().sidecar("hq", utc_date(NOW - timedelta(days=60)), rid(ruled))
    eyes(site.archive).delete_object(Bucket=site.archive.bucket, Key=sidecar)
    result = site.callvault(*ask, f"hq/{ruled}")
    assert result.exit_code == 3
    assert "a delete marker hides" in result.stderr
    result = site.callvault("erase", "--recording", f"hq/{old}", "--reason", "again")
    assert result.exit_code == 0
    assert "certificate: v1/certificates/" in result.stdout


@pytest.mark.parametrize(
    ("recording", "reason", "words"),
    [("hq", "x", "write SOURCE/ID"), ("/1", "x", "write SOURCE/ID"), ("hq/1", " ", "--reason is empty")],
)
def test_a_request_that_makes_no_sense_is_refused(
    make_site: MakeSite, s3: str, recording: str, reason: str, words: str
) -> None:
    """With 2, and what to write instead."""
    site = make_site({"hq": SimulatedXivo()}, archive=new_bucket(s3))
    result = site.callvault("erase", "--recording", recording, "--reason", reason)
    assert result.exit_code == 2
    assert words in result.stderr


def test_in_a_bucket_without_versions_erasing_works_too(make_site: MakeSite, s3: str) -> None:
    """And what was erased stays gone."""
    simulator = SimulatedXivo(calls())
    site = make_site({"hq": simulator}, archive=new_bucket(s3))
    span = ("--from", (NOW - timedelta(days=90)).isoformat(), "--to", NOW.isoformat())
    assert site.run(*span)[0] == 0
    for _ in range(2):
        result = site.callvault("erase", "--recording", f"hq/{id_of(site, 1)}", "--reason", "x")
        assert result.exit_code == 0, result.output
    assert len(under(site, "recordings")) == 6
    assert site.run(*span)[1]["archived"] == 0
