"""The small values of the store: errors, capabilities in words, metadata."""

import pickle
from dataclasses import replace

import pytest

from storage import errors
from storage.metadata import checked
from tests.support.scripted_s3 import EVERYTHING

KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type)]


@pytest.mark.parametrize("kind", KINDS)
def test_errors_survive_pickling(kind: type[errors.StoreError]) -> None:
    """Between processes message and key stay; the text is the message alone."""
    back = pickle.loads(pickle.dumps(kind("what happened", "v1/a")))
    assert type(back) is kind
    assert (str(back), back.message, back.key) == ("what happened", "what happened", "v1/a")
    assert kind("no key").key == ""
    assert isinstance(back, errors.StoreError)


def test_a_store_that_can_do_everything_has_no_shortcomings() -> None:
    """Nothing is said where nothing is missing; versions and locks are no shortcoming."""
    assert EVERYTHING.shortcomings() == []


@pytest.mark.parametrize(
    ("missing", "words"),
    [
        (["create_only", "create_only_multipart"], "ignores If-None-Match:"),
        (["create_only_multipart"], "when a large upload is completed"),
        (["checksum"], "accepts a wrong x-amz-checksum-sha256"),
        (["checksum", "checksum_headers"], "refuses x-amz-checksum-sha256"),
        (["payload_hash"], "differ from the signed SHA-256"),
    ],
)
def test_each_shortcoming_is_one_sentence(missing: list[str], words: str) -> None:
    """What is missing is said once, in words."""
    (sentence,) = replace(EVERYTHING, **dict.fromkeys(missing, False)).shortcomings()
    assert words in sentence


def test_metadata_are_copied() -> None:
    """Plain ASCII passes, inner blanks included; none at all is empty."""
    told = {"sha256": "0" * 64, "source-name": "a b", "v": "x"}
    assert checked(told) == told
    assert checked(told) is not told
    assert checked(None) == {}


@pytest.mark.parametrize("name", ["", "Sha256", "a b", "a:b", "ä", "x" * 65])
def test_odd_metadata_names_are_refused(name: str) -> None:
    """A name that S3 would change or a header cannot carry is a mistake."""
    with pytest.raises(ValueError, match="metadata name"):
        checked({name: "x"})


@pytest.mark.parametrize("value", ["", " x", "x ", "a\nb", "é", "\x7f"])
def test_odd_metadata_values_are_refused(value: str) -> None:
    """So is such a value."""
    with pytest.raises(ValueError, match="'name' has a value"):
        checked({"name": value})
