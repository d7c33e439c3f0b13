"""`callvault retention expire` as a real process that is killed with SIGKILL, at a bucket over HTTP with Object Lock.

The moments are counted in requests at the server, and drawn from a seed: nothing depends on the machine's speed.
"""

import json
import os
import random
import signal
import threading
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from config.settings import Archive
from storage.certificate import Certificate, Fate
from storage.holds import Hold, Scope, Step
from storage.keys import Keys, rid
from storage.sidecar import canonical
from tests.support.audio import wav
from tests.support.forking import Forking
from tests.support.s3 import eyes, moto, new_bucket
from tests.support.simulator import Call
from tests.support.site import Site
from tests.support.xivo import SimulatedXivo

DEATHS = 20
SEED = 20260305
NOW = datetime.now(UTC).replace(microsecond=0)
LONG_AGO = NOW - timedelta(days=60)
SPAN = ("--from", (NOW - timedelta(days=90)).isoformat(), "--to", NOW.isoformat())
POLICY = """
[retention]
mode = "governance"
default = "30d"
expire = true
[[retention.rules]]
name = "desk"
match = { number = "5550*" }
keep = "7y"
"""
DUE, HELD, RULED, YOUNG, EVIDENCE = (1, 2, 3), 4, 5, 6, 7


class Deadly:
    """Around the S3 server: kills the process that asks at its n-th request, carried out or not."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self._counting = threading.Lock()
        self._known = threading.Event()
        self.pid = 0
        self.armed = False
        self.seen = 0
        self.at = 0
        self.done = False

    def arm(self, at: int, *, done: bool) -> None:
        """Have the n-th request from now on be the last one; 0 counts only."""
        self._known.clear()
        self.seen, self.at, self.done, self.armed = 0, at, done, True

    def aim(self, pid: int) -> None:
        """Say who is to die. Requests wait until that is known."""
        self.pid = pid
        self._known.set()

    def __call__(self, environ: Any, start_response: Any) -> Iterable[bytes]:
        if not self.armed:
            return self._app(environ, start_response)  # type: ignore[no-any-return]
        assert self._known.wait(30)
        with self._counting:
            self.seen += 1
            last = self.seen == self.at
        if last and not self.done:
            os.kill(self.pid, signal.SIGKILL)
            start_response("503 Service Unavailable", [])
            return []
        answer = list(self._app(environ, start_response))
        if last:
            os.kill(self.pid, signal.SIGKILL)
        return answer


@pytest.fixture
def deadly() -> Iterator[tuple[str, Deadly]]:
    """Run moto with somebody deadly around it."""
    made: list[Deadly] = []

    def around(app: Any) -> Deadly:
        made.append(Deadly(app))
        return made[0]

    with moto(around) as url:
        yield url, made[0]


class Bucket:
    """One bucket with everything in it, as `eyes` see it."""

    def __init__(self, archive: Archive) -> None:
        self.archive = archive
        self.s3 = eyes(archive)

    def versions(self) -> dict[tuple[str, str], str]:
        """Return ETags by key and version; there must be no delete marker, at any time."""
        listed = self.s3.list_object_versions(Bucket=self.archive.bucket)
        assert not listed["IsTruncated"]
        assert "DeleteMarkers" not in listed
        return {(row["Key"], row["VersionId"]): row["ETag"] for row in listed.get("Versions", [])}

    def contents(self) -> list[dict[str, Any]]:
        """Return what it takes to write the same again, locks and legal holds included."""
        kept = ("Metadata", "ObjectLockMode", "ObjectLockRetainUntilDate", "ObjectLockLegalHoldStatus")
        found = []
        for key, version in self.versions():
            told = self.s3.get_object(Bucket=self.archive.bucket, Key=key, VersionId=version)
            same = {name: told[name] for name in kept if name in told}
            found.append({"Key": key, "Body": told["Body"].read(), "ChecksumAlgorithm": "SHA256", **same})
        return found

    def fill(self, contents: list[dict[str, Any]]) -> None:
        """Write all of it."""
        for told in contents:
            self.s3.put_object(Bucket=self.archive.bucket, **told)

    def certificates(self) -> list[Certificate]:
        """Return the certificates as they stand."""
        keys = {key for key, _ in self.versions() if key.startswith("v1/certificates/")}
        return [Certificate.model_validate_json(self._get(key)) for key in sorted(keys)]

    def claimed(self) -> list[tuple[str, str | None, str | None]]:
        """Return what completed certificates say is destroyed: key, version, hash."""
        return [
            (version.key, version.version_id, version.sha256)
            for certificate in self.certificates()
            if certificate.state == "complete"
            for item in certificate.recordings
            if item.fate is Fate.DESTROYED
            for version in item.versions
        ]

    def _get(self, key: str) -> bytes:
        body: bytes = self.s3.get_object(Bucket=self.archive.bucket, Key=key)["Body"].read()
        return body


def archived(folder: Path, url: str, simulator: SimulatedXivo) -> Bucket:
    """Archive calls of long ago, whose promise was over by then, and calls that are kept; hold one of them."""
    site = site_at(folder, new_bucket(url, object_lock=True), simulator)
    code, report = site.run(*SPAN)
    assert (code, report["archived"], report["gaps"]) == (3, 6, 1)
    simulator.calls[-1].media = wav(0.2, seed=EVIDENCE)  # what was a text is audio by now
    result = site.callvault("retry", "--source", "hq", "--all")
    assert result.exit_code == 0, result.output
    bucket = Bucket(site.archive)
    quarantine = Keys().quarantine("hq", LONG_AGO.date(), name_of(simulator, EVIDENCE), 1, "wav")
    bucket.s3.put_object(Bucket=site.archive.bucket, Key=quarantine, Body=b"evidence")
    held = name_of(simulator, HELD)
    scope = Scope(recordings=(f"hq/{next(c.id for c in simulator.calls if c.number == HELD)}",))
    hold = Hold(name="acme", scope=scope, placed=Step(at=NOW, by="counsel", reason="dispute"))
    bucket.s3.put_object(Bucket=site.archive.bucket, Key=Keys().hold("acme"), Body=canonical(hold))
    for key, version in bucket.versions():
        if f"/{held}." in key:
            bucket.s3.put_object_legal_hold(
                Bucket=site.archive.bucket, Key=key, VersionId=version, LegalHold={"Status": "ON"}
            )
    return bucket


def name_of(simulator: SimulatedXivo, number: int) -> str:
    """Return how a recording is called in keys."""
    return rid(next(call.id for call in simulator.calls if call.number == number))


def site_at(folder: Path, archive: Archive, simulator: SimulatedXivo) -> Site:
    """Return a site at a bucket."""
    folder.mkdir(exist_ok=True)
    site = Site(folder, archive, {"hq": simulator}, {}, {}, retention=POLICY)
    site.write()
    return site


def not_archived_again(bucket: Bucket) -> set[str]:
    """Return the recordings that a poll leaves alone: by their sidecar, or by the note that they were destroyed."""
    told = [Keys().parse(key) for key, _ in bucket.versions() if key.endswith(".json")]
    return {parsed.rid for parsed in told if parsed and parsed.kind in ("recordings", "destroyed")}


def test_killed_at_any_moment_it_converges_and_its_certificates_are_true(
    deadly: tuple[str, Deadly], tmp_path: Path
) -> None:
    """Twenty deaths: what was due is gone, each version certified once with its hash, nothing else is touched."""
    url, death = deadly
    calls = [Call(number=n, started_at=LONG_AGO, from_="1001", to="1002", media=wav(0.2, seed=n)) for n in (*DUE, HELD)]
    calls.append(Call(number=RULED, started_at=LONG_AGO, from_="5550100", to="1002", media=wav(0.2, seed=RULED)))
    calls.append(Call(number=YOUNG, started_at=NOW - timedelta(days=1), from_="1001", to="1002"))
    calls.append(Call(number=EVIDENCE, started_at=LONG_AGO, from_="1001", to="1002", media=b"<html>no audio</html>"))
    draw = random.Random(SEED)
    with SimulatedXivo(calls) as simulator:
        first = archived(tmp_path / "first", url, simulator)
        contents = first.contents()
        doomed_names = {name_of(simulator, number) for number in (*DUE, EVIDENCE)}
        environ = {**os.environ, **site_at(tmp_path / "first", first.archive, simulator).environ}
        deaths, total = 0, 0
        with Forking(environ, tmp_path / "log") as forking:
            while deaths < DEATHS:
                bucket = Bucket(new_bucket(url, object_lock=True))
                bucket.fill(contents)
                site = site_at(tmp_path / "site", bucket.archive, simulator)
                before = bucket.versions()
                doomed = {row for row in before if _rid(row[0]) in doomed_names}
                expire = ("retention", "expire", "--json", "--config", str(site.config))
                if total:
                    death.arm(draw.randint(1, total), done=draw.random() < 0.5)
                    death.aim(forking.start(*expire))
                    ended, death.armed = forking.ended(), False
                    # Looks at the matters are shared, so a run may need fewer requests than the first.
                    if ended == 0:
                        continue
                    assert ended == -signal.SIGKILL
                    deaths += 1
                    assert not {row[:2] for row in bucket.claimed()} & bucket.versions().keys()
                    assert before.keys() - bucket.versions().keys() <= doomed
                    assert not_archived_again(bucket) == {rid(call.id) for call in simulator.calls}
                death.arm(0, done=False)
                death.aim(forking.start(*expire))
                assert forking.ended() == 0, (tmp_path / "log").read_text()
                death.armed, total = False, total or death.seen
                after = bucket.versions()
                assert before.keys() - after.keys() == doomed
                assert all(after[row] == before[row] for row in before.keys() - doomed)
                claimed = bucket.claimed()
                assert sorted((key, version) for key, version, _ in claimed) == sorted(doomed)
                assert all(sha256 for _, _, sha256 in claimed)
                assert {certificate.state for certificate in bucket.certificates()} == {"complete"}
                notes = {_rid(key) for key, _ in after if key.startswith("v1/destroyed/")}
                assert notes == doomed_names
        assert site.run(*SPAN)[1]["archived"] == 0
        report = json.loads(site.callvault("retention", "expire", "--dry-run", "--json").stdout)
        assert (report["destroyed"], report["unfinished"], report["held"]) == (0, 0, 1)
    assert total > 60


def _rid(key: str) -> str:
    """Return whose object it is."""
    parsed = Keys().parse(key)
    if parsed is None:
        return ""
    return parsed.rid.rpartition(".")[0] if parsed.kind == "quarantine" else parsed.rid
