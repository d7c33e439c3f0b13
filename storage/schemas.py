"""The published JSON Schemas of everything that is written as JSON into the bucket, made from the models.

`python -m storage.schemas` rewrites `storage/schema/*.json`; a test keeps the files and the models equal.
"""

import json
from pathlib import Path

from storage.certificate import Certificate, DestroyedNote, Erasure
from storage.holds import Hold
from storage.sidecar import GapRecord, Model, Sidecar

FOLDER = Path(__file__).parent / "schema"

_MODELS: dict[str, tuple[type[Model], str]] = {
    "recording-v1.json": (Sidecar, "urn:callvault:recording:v1"),
    "gap-v1.json": (GapRecord, "urn:callvault:gap:v1"),
    "certificate-v1.json": (Certificate, "urn:callvault:certificate:v1"),
    "destroyed-v1.json": (DestroyedNote, "urn:callvault:destroyed:v1"),
    "erasure-v1.json": (Erasure, "urn:callvault:erasure:v1"),
    "hold-v1.json": (Hold, "urn:callvault:hold:v1"),
}


def generate() -> dict[str, str]:
    """Return the text of each schema file by its name. They describe what is written: every field is present."""
    found = {}
    for name, (model, identity) in _MODELS.items():
        schema = model.model_json_schema(by_alias=True, mode="serialization")
        head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": identity}
        found[name] = json.dumps({**head, **schema}, indent=2, ensure_ascii=False) + "\n"
    return found


def main() -> None:
    """Write the files."""
    FOLDER.mkdir(exist_ok=True)
    for name, text in generate().items():
        (FOLDER / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":  # pragma: no cover - run as a program only; `main` is what it does
    main()
