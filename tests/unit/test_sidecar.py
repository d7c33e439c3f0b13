"""Sidecar and gap record: the published form, the published schema, and what is refused."""

import json
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from pydantic import ValidationError

from storage import schemas
from storage.sidecar import CallFacts, Direction, GapReason, GapRecord, Sidecar, canonical, utc_text

SAMPLE = """
{
  "schema": "callvault/recording/v1",
  "source": "hq", "vendor": "yeastar", "recording_id": "20170901181806-1504261084.7-1001-1003-Internal.wav",
  "call": {"started_at": "2017-09-01T10:18:04Z", "ended_at": null, "duration_seconds": 12.0, "direction": "internal",
           "from": "1001", "to": "1003", "agent": null, "queue": null, "call_id": "1504261084.7"},
  "media": {"key": "v1/recordings/source=hq/date=2017-09-01/20170901181806-1504261084.7-1001-1003-Internal.wav.wav",
            "version_id": null, "content_type": "audio/wav", "bytes": 195244,
            "sha256": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            "vendor_hash": {"verdict": "absent", "algorithm": null, "value": null}, "warnings": []},
  "archive": {"archived_at": "2026-03-05T12:00:00Z", "archived_by": "callvault 0.1.0", "retain_until": null,
              "lock_mode": null, "legal_hold": false},
  "vendor_record": {"the vendor's own record": "verbatim"}
}
"""

GAP = GapRecord(
    source="hq",
    vendor="verba",
    recording_id="1",
    call=CallFacts(started_at=None),
    reason=GapReason.MEDIA_MISSING,
    detail="404 since the call's end",
    first_seen_at=datetime(2026, 3, 5, 12, tzinfo=UTC),
    last_try_at=datetime(2026, 3, 5, 13, tzinfo=UTC),
    tries=3,
    vendor_record={"id": 1},
)


def validator(name: str) -> Draft202012Validator:
    """Return a validator for a published schema."""
    schema = json.loads((schemas.FOLDER / name).read_text(encoding="utf-8"))
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER)


def test_the_sample_is_a_sidecar() -> None:
    """The documented sample is read, written back with the same content, and fits the published schema."""
    sidecar = Sidecar.model_validate_json(SAMPLE)
    assert sidecar.call.direction is Direction.INTERNAL
    assert json.loads(canonical(sidecar)) == json.loads(SAMPLE)
    assert list(json.loads(canonical(sidecar))) == list(json.loads(SAMPLE))
    validator("recording-v1.json").validate(json.loads(SAMPLE))


def test_the_bytes_are_for_people_and_machines() -> None:
    """UTF-8 without escapes, indented, one newline at the end; the same bytes each time; read back equal."""
    sidecar = Sidecar.model_validate_json(SAMPLE.replace("verbatim", "Grüezi"))
    body = canonical(sidecar)
    assert "Grüezi".encode() in body
    assert body.endswith(b"\n}\n")
    assert body == canonical(sidecar)
    assert Sidecar.model_validate_json(body) == sidecar


def test_a_gap_record_fits_its_schema() -> None:
    """A gap without a readable start is written whole and fits the published schema."""
    written = json.loads(canonical(GAP))
    validator("gap-v1.json").validate(written)
    assert (written["schema"], written["reason"], written["call"]["started_at"]) == (
        "callvault/gap/v1",
        "media_missing",
        None,
    )


def _without(field: str) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(SAMPLE)
    del told[field]
    return told


@pytest.mark.parametrize(
    "told",
    [
        {**json.loads(SAMPLE), "extra": 1},
        {**json.loads(SAMPLE), "schema": "callvault/recording/v2"},
        {**json.loads(SAMPLE), "media": {**json.loads(SAMPLE)["media"], "sha256": "E3" * 32}},
        {**json.loads(SAMPLE), "call": {**json.loads(SAMPLE)["call"], "started_at": "2017-09-01T10:18:04"}},
        {**json.loads(SAMPLE), "call": {**json.loads(SAMPLE)["call"], "direction": "up"}},
        _without("vendor_record"),
    ],
)
def test_what_is_no_sidecar_is_refused_by_model_and_schema(told: dict[str, Any]) -> None:
    """Unknown fields, another schema, a malformed hash, a time without zone: neither reads it."""
    with pytest.raises(ValidationError):
        Sidecar.model_validate_json(json.dumps(told))
    assert not validator("recording-v1.json").is_valid(told)


def test_published_schemas_are_those_of_the_models() -> None:
    """The committed files are what the models say; `python -m storage.schemas` writes them anew."""
    committed = {path.name: json.loads(path.read_text(encoding="utf-8")) for path in schemas.FOLDER.glob("*.json")}
    assert committed == {name: json.loads(text) for name, text in schemas.generate().items()}


def test_schemas_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The program makes the folder and both files."""
    monkeypatch.setattr(schemas, "FOLDER", tmp_path / "schema")
    schemas.main()
    assert {path.name: path.read_text("utf-8") for path in (tmp_path / "schema").iterdir()} == schemas.generate()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (datetime(2026, 3, 5, 12, tzinfo=UTC), "2026-03-05T12:00:00Z"),
        (datetime(2026, 3, 5, 12, 0, 0, 250_000, tzinfo=UTC), "2026-03-05T12:00:00.250000Z"),
        (datetime(2026, 3, 5, 12, tzinfo=timezone(timedelta(hours=2))), "2026-03-05T10:00:00Z"),
    ],
)
def test_times_are_written_in_utc(value: datetime, text: str) -> None:
    """Any zone becomes UTC with a Z; fractions appear only where there are any."""
    assert utc_text(value) == text
