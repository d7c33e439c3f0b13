"""`callvault run` under a policy, on a real S3 server (Ceph RGW) and on moto: every version written is locked.

What the two do otherwise than AWS is in `tests.contract.test_server_gaps`; here only what differs for locks.
"""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError
from celery import signals
from pydantic import SecretStr

from config.load import load
from config.settings import Archive, Broker
from tasks import process
from tests.integration.conftest import MakeSite
from tests.support.audio import wav
from tests.support.s3 import eyes, new_bucket
from tests.support.simulator import Call
from tests.support.site import Site
from tests.support.valkey import Valkey
from tests.support.xivo import SimulatedXivo
from worker.vendors import vendor_keys

FIVE_MIB = 5 * 1024 * 1024
YESTERDAY = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=20)
MODES = ["governance", "compliance"]
POLICY = """
[retention]
mode = "MODE"
accept_compliance_lock = true
default = "7y"
[[retention.rules]]
name = "short"
match = { number = "5550*" }
keep = "400d"
"""


@pytest.fixture(params=["rgw", "s3"])
def server(request: pytest.FixtureRequest) -> str:
    """Return the URL of each server in turn."""
    url: str = request.getfixturevalue(request.param)
    return url


def calls() -> list[Call]:
    """Return a small call, a large one, one for the rule, and one whose audio is a text."""
    return [
        Call(number=1, started_at=YESTERDAY, from_="1001", to="1002"),
        Call(number=2, started_at=YESTERDAY, from_="1001", to="1002", media=wav(700)),
        Call(number=3, started_at=YESTERDAY, from_="5550100", to="1002"),
        Call(number=4, started_at=YESTERDAY, from_="1001", to="1002", media=b"<html>no audio</html>"),
    ]


def site_of(make_site: MakeSite, archive: Archive, mode: str, made: list[Call] | None = None) -> Site:
    """Return a site with one source under the policy."""
    retention = POLICY.replace("MODE", mode)
    return make_site(
        {"hq": SimulatedXivo(calls() if made is None else made)},
        archive=archive,
        runtime={"part_bytes": FIVE_MIB},
        retention=retention,
    )


def versions(archive: Archive) -> list[dict[str, Any]]:
    """Return what HEAD tells of every version in the bucket, with its key."""
    s3 = eyes(archive)
    listed = s3.list_object_versions(Bucket=archive.bucket)
    assert not listed["IsTruncated"]
    assert not listed.get("DeleteMarkers")
    found = []
    for row in listed.get("Versions", []):
        told = s3.head_object(Bucket=archive.bucket, Key=row["Key"], VersionId=row["VersionId"])
        found.append({**told, "Key": row["Key"]})
    return found


@pytest.mark.parametrize("mode", MODES)
def test_every_version_written_is_locked(make_site: MakeSite, server: str, mode: str) -> None:
    """Media in one piece and in parts, sidecars and gap records; nothing else is left; a second run adds nothing."""
    archive = new_bucket(server, object_lock=True)
    made = calls()
    site = site_of(make_site, archive, mode, made)
    code, report = site.run()
    assert (code, report["archived"], report["gaps"]) == (3, 3, 1)
    found = versions(archive)
    assert sorted(told["Key"].split("/")[1] for told in found) == ["gaps", *["recordings"] * 6]
    large = [told for told in found if told["ContentLength"] > FIVE_MIB]
    assert len(large) == 1
    assert {told["ObjectLockMode"] for told in found} == {mode.upper()}
    dates = {told["Key"]: told["ObjectLockRetainUntilDate"] for told in found}
    for call in made[:3]:
        sidecar = site.sidecar("hq", call)
        told = sidecar["archive"]
        until = datetime.fromisoformat(told["retain_until"])
        ended = datetime.fromisoformat(sidecar["call"]["ended_at"] or sidecar["call"]["started_at"])
        kept = ended + timedelta(days=400) if call.number == 3 else ended.replace(year=ended.year + 7)
        assert until == kept
        assert (told["lock_mode"], told["retention"]["rule"]) == (mode, "short" if call.number == 3 else None)
        media = sidecar["media"]["key"]
        assert dates[media] == dates[media.rpartition(".")[0] + ".json"] == until
    assert site.run()[1]["held"] == 3
    assert len(versions(archive)) == 7


@pytest.mark.parametrize("mode", MODES)
def test_a_locked_version_cannot_be_deleted_or_shortened(make_site: MakeSite, rgw: str, mode: str) -> None:
    """On a real server, whoever asks, with all rights but the one to bypass; nor bypassed in compliance mode."""
    archive = new_bucket(rgw, object_lock=True)
    site_of(make_site, archive, mode, calls()[:2]).run()
    s3 = eyes(archive)
    before = versions(archive)
    assert len(before) == 4
    bypasses = [False, True] if mode == "compliance" else [False]
    for told in before:
        name = {"Bucket": archive.bucket, "Key": told["Key"], "VersionId": told["VersionId"]}
        sooner = {"Mode": mode.upper(), "RetainUntilDate": datetime.now(UTC) + timedelta(days=1)}
        for bypass in bypasses:
            with pytest.raises(ClientError, match="AccessDenied"):
                s3.delete_object(**name, BypassGovernanceRetention=bypass)
            with pytest.raises(ClientError, match="AccessDenied"):
                s3.put_object_retention(**name, Retention=sooner, BypassGovernanceRetention=bypass)
    assert [told["VersionId"] for told in versions(archive)] == [told["VersionId"] for told in before]


def test_what_a_dead_worker_left_unlocked_is_locked(make_site: MakeSite, server: str) -> None:
    """Media written before there was a policy, without a sidecar, are adopted and locked like new ones."""
    archive = new_bucket(server, object_lock=True)
    site = site_of(make_site, archive, "governance", calls()[:1])
    locked, site.retention = site.retention, ""
    assert site.run()[0] == 0
    (sidecar,) = [key for key in site.listing() if key.endswith(".json")]
    s3 = eyes(archive)
    for told in versions(archive):
        assert "ObjectLockMode" not in told
        if told["Key"] == sidecar:
            s3.delete_object(Bucket=archive.bucket, Key=sidecar, VersionId=told["VersionId"])
    site.retention = locked
    code, report = site.run()
    assert (code, report["archived"]) == (0, 1)
    found = versions(archive)
    assert len(found) == 2
    assert {told["ObjectLockMode"] for told in found} == {"GOVERNANCE"}


def test_a_call_of_long_ago_is_archived_without_a_lock(make_site: MakeSite, server: str) -> None:
    """Its time was over before it came: a server that refuses dates in the past takes it, and the sidecar says so."""
    archive = new_bucket(server, object_lock=True)
    old = Call(number=3, started_at=YESTERDAY - timedelta(days=500), from_="5550100", to="1002")
    site = site_of(make_site, archive, "governance", [old])
    span = ("--from", (old.started_at - timedelta(hours=1)).isoformat(), "--to", YESTERDAY.isoformat())
    code, report = site.run(*span)
    assert (code, report["archived"]) == (0, 1)
    assert all("ObjectLockMode" not in told for told in versions(archive))
    told = site.sidecar("hq", old)["archive"]
    assert datetime.fromisoformat(told["retain_until"]) < datetime.now(UTC)
    assert (told["lock_mode"], told["retention"]["rule"]) == (None, "short")


def test_a_bucket_that_cannot_lock_is_refused(make_site: MakeSite, server: str) -> None:
    """`run` and `check` end with 4 and the sentence that says how to make one that can; nothing is archived."""
    archive = new_bucket(server, versioned=True)
    site = site_of(make_site, archive, "governance")
    code, report = site.run()
    assert (code, report["archived"]) == (4, 0)
    (sentence,) = report["errors"]
    assert "has no Object Lock" in sentence
    assert "--object-lock-enabled-for-bucket" in sentence
    assert site.listing() == []
    assert site.run("--from", "2020-01-01", "--to", "2020-01-02")[0] == 4, "also where there is nothing to archive"
    result = site.callvault("check", "--json")
    assert result.exit_code == 4
    (bucket,) = [row for row in json.loads(result.stdout)["checks"] if row["what"].startswith("bucket")]
    assert (bucket["ok"], bucket["detail"]) == (False, sentence)


def test_up_and_worker_refuse_it_with_2(
    make_site: MakeSite, s3: str, valkey: Valkey, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before anything is started, or as soon as a worker is ready: systemd must not start them again and again."""
    site = site_of(make_site, new_bucket(s3), "governance")
    monkeypatch.setattr("tasks.cli.serve.run_up", lambda *_: 0)
    result = site.callvault("up")
    assert (result.exit_code, "has no Object Lock" in result.output) == (2, True)
    told = load(site.config, vendor_keys(), site.environ).model_copy(
        update={"broker": Broker(url=SecretStr(valkey.url))}
    )
    monkeypatch.setattr(process, "_settings", told)
    with pytest.raises(SystemExit) as caught:
        signals.worker_ready.send(sender=None)
    assert (caught.value.code, "has no Object Lock" in capsys.readouterr().err) == (2, True)
    site.retention = ""
    assert site.callvault("up").exit_code == 0


def test_check_says_that_recordings_are_locked(make_site: MakeSite, server: str) -> None:
    """With the mode and the version of the policy that sidecars tell; no probe object stays, locked or not."""
    archive = new_bucket(server, object_lock=True)
    result = site_of(make_site, archive, "compliance").callvault("check")
    assert result.exit_code == 0
    assert "object lock on; recordings are locked in compliance mode, policy " in result.stdout
    assert versions(archive) == []
