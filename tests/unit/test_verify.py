import base64
import hashlib

import pytest

from storage.sidecar import CallFacts, Verdict
from tests.support.bench import NOW
from worker.model import ClaimedHash, Recording
from worker.verify import compare_hash, size_warning

OURS = hashlib.sha256(b"audio").hexdigest()
OTHER = hashlib.sha256(b"other").hexdigest()


@pytest.mark.parametrize(
    ("algorithm", "value", "verdict"),
    [
        ("SHA256", OURS, Verdict.MATCH),
        ("sha-256", OURS.upper(), Verdict.MATCH),
        ("SHA-256", base64.b64encode(bytes.fromhex(OURS)).decode(), Verdict.MATCH),
        ("SHA-256", f" {OURS}\n", Verdict.MATCH),
        ("SHA-256", OTHER, Verdict.DIFFERS),
        ("SHA-256", base64.b64encode(bytes.fromhex(OTHER)).decode(), Verdict.DIFFERS),
        ("SHA-256", "not a hash at all!", Verdict.UNRECOGNISED),
        ("SHA-256", base64.b64encode(b"short").decode(), Verdict.UNRECOGNISED),
        ("SHA-256", "é" * 44, Verdict.UNRECOGNISED),
        ("MD5", OURS, Verdict.UNRECOGNISED),
    ],
)
def test_a_vendor_hash_is_compared_in_every_form_it_comes_in(algorithm: str, value: str, verdict: Verdict) -> None:
    """Hex of any case and base64 are compared; anything else is unrecognised; the claim is kept verbatim."""
    facts = compare_hash(ClaimedHash(algorithm, value), OURS)
    assert (facts.verdict, facts.algorithm, facts.value) == (verdict, algorithm, value)


def test_no_vendor_hash_is_said_to_be_absent() -> None:
    """A vendor without a hash is no failure."""
    assert compare_hash(None, OURS).verdict is Verdict.ABSENT


def test_a_size_field_that_differs_is_a_warning() -> None:
    """The vendor's size is compared, never binding."""
    recording = Recording("a", CallFacts(started_at=NOW), {}, expected_bytes=10)
    assert size_warning(recording, 10) is None
    assert "10 bytes" in (size_warning(recording, 11) or "")
    assert size_warning(Recording("a", CallFacts(started_at=NOW), {}), 11) is None
