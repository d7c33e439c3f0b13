"""Certificates, notes and requests: what is written fits the published schemas, and says no number of anybody."""

import json
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

from storage import schemas
from tests.support.expiring import Archive
from worker.erase import erase


def validator(name: str) -> Any:
    """Return a validator for a published schema."""
    schema = json.loads((schemas.FOLDER / name).read_text(encoding="utf-8"))
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER)


async def test_what_is_put_on_record_fits_its_schema(tmp_path: Path) -> None:
    """Each version of each, begun and complete, deferred and erased; parties of the call are in none of them."""
    archive = Archive(tmp_path)
    [asked, _] = await archive.add(1, 2)
    await erase(archive.services, "hq", asked.id, reason="Art. 17", by="officer")
    archive.later(31)
    await archive.expire()
    seen = {"certificates": 0, "destroyed": 0, "erasures": 0}
    names = {"certificates": "certificate-v1.json", "destroyed": "destroyed-v1.json", "erasures": "erasure-v1.json"}
    for key, rows in archive.store.versions_of.items():
        kind = key.split("/")[1]
        for row in rows:
            validator(names[kind]).validate(json.loads(row.body))
            assert b"5550100" not in row.body
            seen[kind] += 1
    assert seen == {"certificates": 4, "destroyed": 2, "erasures": 2}
