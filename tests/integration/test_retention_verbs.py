"""`callvault retention audit`, `apply` and `plan`, on a real S3 server (Ceph RGW) and on moto."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from storage.holds import Hold, Scope, Step
from storage.sidecar import canonical
from tasks.cli import retention_audit, retention_plan
from tests.integration.conftest import MakeSite
from tests.support.s3 import eyes, new_bucket
from tests.support.simulator import Call
from tests.support.site import Site
from tests.support.xivo import SimulatedXivo

BEGINS = datetime.now(UTC).replace(hour=12, minute=0, second=0, microsecond=0) - timedelta(days=1)
POLICY = """
[retention]
mode = "governance"
default = "DEFAULT"
[[retention.rules]]
name = "desk"
match = { number = "5550*" }
keep = "DESK"
"""


def policy(default: str, desk: str) -> str:
    """Return a policy with one rule."""
    return POLICY.replace("DEFAULT", default).replace("DESK", desk)


def site_of(make_site: MakeSite, server: str, count: int = 3) -> Site:
    """Return a site whose recordings, the last of them under the rule, are archived."""
    made = [Call(number=n, started_at=BEGINS + timedelta(minutes=n), from_="1001", to="1002") for n in range(count - 1)]
    made.append(Call(number=count, started_at=BEGINS, from_="5550100", to="1002"))
    archive = new_bucket(server, object_lock=True)
    site = make_site({"hq": SimulatedXivo(made)}, archive=archive, retention=policy("30d", "60d"))
    code, document = site.run()
    assert (code, document["archived"]) == (0, count)
    return site


def told(result: Result, code: int) -> dict[str, Any]:
    """Return the one document of a verb that ended so."""
    assert not result.exception or isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == code, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def locks(site: Site) -> dict[str, datetime]:
    """Return until when each version below recordings is locked, as another client sees it."""
    s3, bucket = eyes(site.archive), site.archive.bucket
    rows = s3.list_object_versions(Bucket=bucket, Prefix="v1/recordings/")["Versions"]
    return {
        row["Key"].rpartition("/")[2]: s3.head_object(Bucket=bucket, Key=row["Key"], VersionId=row["VersionId"])[
            "ObjectLockRetainUntilDate"
        ]
        for row in rows
    }


@pytest.fixture(params=["rgw", "s3"])
def server(request: pytest.FixtureRequest) -> str:
    """Return the URL of each server in turn."""
    url: str = request.getfixturevalue(request.param)
    return url


def test_a_policy_grows(make_site: MakeSite, server: str) -> None:
    """Planned, applied, audited: locks are longer then, and each verb says what it did; nothing is read twice."""
    site = site_of(make_site, server)
    before = locks(site)
    first = told(site.callvault("retention", "audit", "--json"), 0)
    assert first == {
        "objects": 6, "versions": 6, "well": 6, "extended": 0, "held": 0, "reported": {}, "findings": [], "errors": [],
    }  # fmt: skip
    other = site.folder / "other.toml"
    other.write_text(policy("90d", "10d"))
    on = (BEGINS + timedelta(days=31)).isoformat()
    asked = told(site.callvault("retention", "plan", "--on", on, "--policy", str(other), "--json"), 3)
    assert (asked["deletable"], asked["deletable_before"]) == (0, 2)
    assert asked["longer"] == [{"rule": None, "recordings": 2}]
    assert asked["shorter"] == [{"rule": "desk", "recordings": 1}]
    assert asked["answered_from"] == {"days": 1, "sidecars_read": 0}
    assert 'rule "desk" is shorter than what was promised for 1 recordings' in asked["errors"][0]
    plan = told(site.callvault("retention", "plan", "--on", on, "--json"), 0)
    assert (plan["recordings"], plan["deletable"], plan["held"]) == (3, 2, 0)
    assert [(row["rule"], row["kept_by"], row["deletable"]) for row in plan["sources"]["hq"]["rules"]] == [
        (None, "default", 2),
        ("desk", "rule", 0),
    ]
    site.retention = policy("90d", "10d")
    dry = told(site.callvault("retention", "apply", "--dry-run", "--json"), 3)
    assert (dry["extended"], dry["versions_extended"]) == ([{"rule": None, "recordings": 2}], 0)
    assert locks(site) == before
    done = told(site.callvault("retention", "apply", "--json"), 3)
    assert (done["extended"], done["versions_extended"], done["sidecars_read"]) == (dry["extended"], 4, 0)
    assert done["shorter"] == [{"rule": "desk", "recordings": 1}]
    after = locks(site)
    grown = [after[name] - before[name] for name in before]
    assert sorted(grown) == [timedelta(0)] * 2 + [timedelta(days=60)] * 4
    again = told(site.callvault("retention", "audit", "--json"), 0)
    assert (again["well"], again["extended"]) == (6, 0)
    assert told(site.callvault("retention", "plan", "--on", on, "--json"), 0)["deletable"] == 0


def test_an_audit_finds_what_somebody_did(make_site: MakeSite, server: str) -> None:
    """A lock shortened with the right to, a delete marker, a stray legal hold: told, with exit code 3."""
    site = site_of(make_site, server)
    s3, bucket = eyes(site.archive), site.archive.bucket
    first, second, third = (key for key in site.listing() if key.endswith(".json") and "/recordings/" in key)
    until = {"Mode": "GOVERNANCE", "RetainUntilDate": datetime.now(UTC) + timedelta(days=1)}
    s3.put_object_retention(Bucket=bucket, Key=first, Retention=until, BypassGovernanceRetention=True)
    s3.put_object_legal_hold(Bucket=bucket, Key=second, LegalHold={"Status": "ON"})
    s3.delete_object(Bucket=bucket, Key=third)
    result = site.callvault("retention", "audit", "--json")
    document = told(result, 3)
    assert document["reported"] == {"shortened": 1, "hold_without_matter": 1, "hidden": 1}
    assert {(row["kind"], row["key"]) for row in document["findings"]} == {
        ("shortened", first),
        ("hold_without_matter", second),
        ("hidden", third),
    }
    assert document["extended"] == 1
    result = site.callvault("retention", "audit")
    assert result.exit_code == 3
    assert "6 objects, 6 versions" in result.output
    assert "hidden: 1" in result.output
    assert f"hidden: {third}" in result.output


def test_of_many_findings_some_are_shown(make_site: MakeSite, s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """And where the others are is said."""
    monkeypatch.setattr(retention_audit, "_SHOWN", 1)
    site = site_of(make_site, s3)
    for key in site.listing():
        if key.endswith(".json"):
            eyes(site.archive).delete_object(Bucket=site.archive.bucket, Key=key)
    result = site.callvault("retention", "audit")
    assert "the first 1 were told; --json names a thousand, the log has all" in result.output


def test_what_was_never_promised_is_kept(make_site: MakeSite, s3: str) -> None:
    """Recordings of before any policy have no end, and are told apart from the others."""
    call = Call(number=1, started_at=BEGINS, from_="1001", to="1002")
    without = make_site({"hq": SimulatedXivo([call])})
    assert without.run()[1]["archived"] == 1
    document = told(without.callvault("retention", "plan", "--on", "2031-03-01", "--json"), 0)
    assert document["deletable"] == 0
    assert [row["kept_by"] for row in document["sources"]["hq"]["rules"]] == ["nothing_promised"]
    assert "nothing promised" in without.callvault("retention", "plan", "--on", "2031-03-01").output


def test_what_people_see(make_site: MakeSite, s3: str) -> None:
    """Tables and sentences; how the answer was found is among them."""
    site = site_of(make_site, s3)
    on = (BEGINS + timedelta(days=61)).isoformat()
    result = site.callvault("retention", "plan", "--on", on)
    assert result.exit_code == 0, result.output
    assert "by the policy in force" in result.output
    assert "3 sidecars had to be read; `callvault retention audit` indexes them" in result.output
    assert "desk" in result.output
    site.retention = policy("90d", "10d") + '[[retention.rules]]\nname = "x"\nmatch = {queue = "x"}\nkeep = "1d"\n'
    site.write()
    result = site.callvault("retention", "plan", "--on", "2031-03-01", "--policy", str(site.config))
    assert result.exit_code == 3
    for sentence in (
        "by the policy asked about",
        "deletable then by the policy in force: 3",
        "the default: `retention apply` would keep 2 recordings longer",
        'rule "desk" is shorter than what was promised for 1 recordings',
        'rule "x" matches nothing in the archive: correct its match, or take it out',
    ):
        assert sentence in result.output
    result = site.callvault("retention", "apply")
    assert result.exit_code == 3
    assert "3 recordings, 2 extended; 3 sidecars read" in result.output
    assert "the default: 2" in result.output
    key = f"v1/recordings/source=hq/date={BEGINS.date()}/junk.json"
    eyes(site.archive).put_object(Bucket=site.archive.bucket, Key=key, Body=b"junk")
    for verb in (("plan", "--on", "2031-03-01"), ("apply", "--dry-run")):
        result = site.callvault("retention", *verb)
        assert result.exit_code == 3
        assert f"{key} is no sidecar that can be read" in result.output


def test_matters_are_named_in_a_plan(make_site: MakeSite, s3: str) -> None:
    """With how many they hold of those whose time is over."""
    site = site_of(make_site, s3)
    hold = Hold(name="acme", scope=Scope(source="h*"), placed=Step(at=BEGINS, by="counsel", reason="dispute"))
    eyes(site.archive).put_object(Bucket=site.archive.bucket, Key="v1/holds/acme.json", Body=canonical(hold))
    result = site.callvault("retention", "plan", "--on", "2031-03-01")
    assert "matter acme holds 3 of those whose time is over then" in result.output


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["plan", "--on", "soon"], "--on soon: write a time such as 2026-03-01T00:00:00Z or a date such as 2026-03-01"),
        (["plan", "--on", "2031-03-01T12:00:00"], "the time has no offset; end it in Z for UTC or in one such as"),
        (["plan", "--on", "3031-03-01"], "write a time between 1971 and 2100"),
        (["plan", "--on", "2031-03-01", "--policy", "nowhere.toml"], "nowhere.toml: no such file"),
        (["apply"], "[retention] has no mode, so that there is nothing to apply"),
    ],
)
def test_bad_input(make_site: MakeSite, s3: str, arguments: list[str], sentence: str) -> None:
    """Is refused with what to write, exit code 2; nothing is asked of the bucket."""
    site = make_site({"hq": SimulatedXivo([])})
    result = site.callvault("retention", *arguments)
    assert result.exit_code == 2
    assert sentence in result.output


@pytest.mark.parametrize(
    ("toml", "sentence"),
    [
        ("[archive]\n", "retention: missing; write [retention] with a mode and a default"),
        (policy("30", "60d"), '30 has no unit; write "30y" for years'),
        (policy("40y", "60d"), "40y is beyond max, 30y"),
        ("[retention", "not TOML"),
    ],
)
def test_a_policy_that_cannot_be_read(make_site: MakeSite, s3: str, toml: str, sentence: str) -> None:
    """Every mistake is told, with the file's name."""
    site = make_site({"hq": SimulatedXivo([])})
    other = site.folder / "other.toml"
    other.write_text(toml)
    result = site.callvault("retention", "plan", "--on", "2031-03-01", "--policy", str(other))
    assert result.exit_code == 2
    assert f"--policy {other}: " in result.output
    assert sentence in result.output


@pytest.mark.parametrize("verb", [["plan", "--on", "2031-03-01"], ["apply"], ["audit"]])
def test_a_bucket_that_cannot_be_used(make_site: MakeSite, s3: str, verb: list[str]) -> None:
    """Is exit code 4 and one document that says why."""
    archive = new_bucket(s3).model_copy(update={"bucket": "nobody-has-this"})
    site = make_site({"hq": SimulatedXivo([])}, archive=archive, retention=policy("30d", "60d"))
    assert "nobody-has-this" in told(site.callvault("retention", *verb, "--json"), 4)["errors"][0]
    result = site.callvault("retention", *verb)
    assert result.exit_code == 4
    assert "nobody-has-this" in result.output


def test_a_bucket_that_locks_nothing_is_refused(make_site: MakeSite, s3: str) -> None:
    """By those that would lock; a dry run and a plan lock nothing."""
    site = make_site({"hq": SimulatedXivo([])}, archive=new_bucket(s3), retention=policy("30d", "60d"))
    for verb in (["apply"], ["audit"]):
        result = site.callvault("retention", *verb)
        assert result.exit_code == 4
        assert "has no Object Lock" in result.output
    assert site.callvault("retention", "apply", "--dry-run").exit_code == 0
    assert site.callvault("retention", "plan", "--on", "2031-03-01").exit_code == 0


def test_many_days_are_shared_among_processes(
    make_site: MakeSite, s3: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The figures are the same, and so is what goes wrong in one of them."""
    site = site_of(make_site, s3)
    alone = told(site.callvault("retention", "plan", "--on", "2031-03-01", "--json"), 0)
    monkeypatch.setattr(retention_plan, "_WORTH_IT", 1)
    monkeypatch.setattr(retention_plan, "_PROCESSES", 2)
    for name, value in site.environ.items():
        monkeypatch.setenv(name, value)
    assert told(site.callvault("retention", "plan", "--on", "2031-03-01", "--json"), 0) == alone


def test_a_share_is_planned_in_any_process(make_site: MakeSite, s3: str) -> None:
    """What a process of its own does, done in this one."""
    import os
    from unittest import mock

    from config.load import load
    from worker.vendors import vendor_keys

    site = site_of(make_site, s3)
    with mock.patch.dict(os.environ, site.environ):
        settings = load(site.config, vendor_keys(), os.environ)
    on = datetime(2031, 3, 1, tzinfo=UTC)
    planned = retention_plan.plan_share(settings, on, None, [("hq", BEGINS.date())])
    assert planned.total().recordings == 3
