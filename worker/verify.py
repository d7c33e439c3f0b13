"""Comparing what came with what the vendor claimed. Pure functions; what follows from a verdict is not decided here."""

import base64
import binascii
import re

from storage.sidecar import VendorHashFacts, Verdict
from worker.model import ClaimedHash, Recording

_HEX = re.compile(r"[0-9a-fA-F]{64}")


def digest_of(claimed: ClaimedHash) -> str | None:
    """Return the claimed SHA-256 in lower-case hex; None where its form is not one of the two known.

    64 hex digits in any case, or base64 of 32 bytes. Imagicle's page calls the field a string and shows none.
    """
    if claimed.algorithm.upper().replace("-", "") != "SHA256":
        return None
    text = claimed.value.strip()
    if _HEX.fullmatch(text):
        return text.lower()
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    return raw.hex() if len(raw) == 32 else None


def compare_hash(claimed: ClaimedHash | None, sha256: str) -> VendorHashFacts:
    """Return the verdict on our SHA-256 (lower-case hex), with the claim kept verbatim."""
    if claimed is None:
        return VendorHashFacts(verdict=Verdict.ABSENT)
    digest = digest_of(claimed)
    verdict = Verdict.UNRECOGNISED if digest is None else Verdict.MATCH if digest == sha256 else Verdict.DIFFERS
    return VendorHashFacts(verdict=verdict, algorithm=claimed.algorithm, value=claimed.value)


def size_warning(recording: Recording, size: int) -> str | None:
    """Return a warning where the vendor's size field says something else than what came, in bytes."""
    if recording.expected_bytes is None or recording.expected_bytes == size:
        return None
    return f"the vendor says {recording.expected_bytes} bytes, {size} came"
