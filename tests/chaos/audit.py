"""The audit at the end: the bucket against the phone systems' own truth, with another client than callvault's."""

import json
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from config.settings import Archive
from tests.chaos.ledger import Ledger
from tests.chaos.people import Known, People
from tests.chaos.store import bucket_of
from tests.support.s3 import eyes

_EXCUSED = {"crashed"}
"""Gaps that need no excuse of a recording's own: it was on its way each time when a worker was killed."""


@dataclass
class Audit:
    """What is where."""

    expected: int = 0
    held: int = 0
    pending: int = 0
    gaps: Counter[str] = field(default_factory=Counter)
    gone: int = 0
    """Recordings that the phone system lost for good before they were archived; callvault cannot have them."""
    objects: int = 0
    uploads: int = 0


@dataclass
class _Found:
    media: dict[str, list[Any]] = field(default_factory=lambda: defaultdict(list))
    """Versions by key."""
    sidecars: list[Any] = field(default_factory=list)
    gap: str | None = None


def audit(archive: Archive, people: People, ledger: Ledger) -> Audit:
    """Compare everything; breaches go to the ledger."""
    client = eyes(archive)
    found: dict[tuple[str, str], _Found] = defaultdict(_Found)
    result = Audit()
    for version in _versions(client, archive.bucket):
        result.objects += 1
        _, kind, source, _, name = version["Key"].split("/")
        stem, _, ext = name.rpartition(".")
        entry = found[source.removeprefix("source="), stem]
        if kind == "recordings" and ext == "json":
            entry.sidecars.append(version)
        elif kind == "recordings":
            entry.media[version["Key"]].append(version)
        elif kind == "gaps" and version["IsLatest"]:
            entry.gap = json.loads(_read(archive.bucket, version))["reason"]
    for key, known in people.known.items():
        _judge(archive.bucket, key, known, found.pop(key, _Found()), result, ledger)
    for (source, rid), entry in found.items():
        if entry.media or entry.sidecars or entry.gap:
            ledger.breach("other", f"{source}/{rid} is in the bucket and was never recorded")
    result.uploads = len(client.list_multipart_uploads(Bucket=archive.bucket).get("Uploads", []))
    if result.uploads:
        ledger.breach("other", f"{result.uploads} multipart uploads are left behind")
    return result


def _judge(bucket: str, key: tuple[str, str], known: Known, entry: _Found, result: Audit, ledger: Ledger) -> None:
    name = "/".join(key)
    if len(entry.sidecars) > 1 or len(entry.media) > 1 or any(len(v) > 1 for v in entry.media.values()):
        versions = sum(len(v) for v in entry.media.values())
        ledger.breach("doubled", f"{name} has {versions} versions of media and {len(entry.sidecars)} sidecars")
    if known.gone and not entry.sidecars:
        result.gone += 1
        return
    result.expected += 1
    if entry.sidecars:
        result.held += 1
        if known.gap:
            ledger.breach("wrong", f"{name} is held and should be a gap {known.gap}")
        for version in (*entry.sidecars, *(v for versions in entry.media.values() for v in versions)):
            _compare(bucket, version, known, ledger)
    elif entry.gap:
        result.gaps[entry.gap] += 1
        if entry.gap != known.gap and entry.gap not in known.excuses | _EXCUSED:
            ledger.breach("lost", f"{name} is a gap {entry.gap}, and nothing that struck it explains that")
    else:
        result.pending += 1
        ledger.breach("lost", f"{name} is neither held nor a gap ({known.call.state}, listed {known.call.listed})")


def _compare(bucket: str, version: Any, known: Known, ledger: Ledger) -> None:
    body = _read(bucket, version)
    told = json.loads(body)["media"]["sha256"] if version["Key"].endswith(".json") else sha256(body).hexdigest()
    if told != known.sha256:
        ledger.breach("wrong", f"{version['Key']} has other bytes than the phone system")


def _read(bucket: str, version: Any) -> bytes:
    """Return the bytes as moto holds them: asking for ten thousand objects over HTTP takes minutes."""
    return next(
        bytes(f.value) for f in bucket_of(bucket).getlist(version["Key"]) if f.version_id == version["VersionId"]
    )


def _versions(client: Any, bucket: str) -> list[Any]:
    pages = client.get_paginator("list_object_versions").paginate(Bucket=bucket, Prefix="v1/")
    return [version for page in pages for version in page.get("Versions", []) if "/probe/" not in version["Key"]]
