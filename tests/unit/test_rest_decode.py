"""Reading answers without trusting them: JSON, XML, CSV become values or `BadAnswer`, and nothing else."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.errors import BadAnswer
from worker.rest.decode import csv_of, json_object, json_of, looks_like_a_document, text_of, xml_of

COLUMNS = frozenset({"id", "start"})


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"a": [1, "x", null, true, 1.5]}', {"a": [1, "x", None, True, 1.5]}),
        (b'\xef\xbb\xbf"text"', "text"),
        ('"\u00fc\U0001f4de"'.encode(), "\u00fc\U0001f4de"),
        (rb'{"\udc80": "\ud800x"}', {"\\udc80": "\\ud800x"}),  # lone surrogates are spelled out
        (b"[NaN, -Infinity, 1e999, -1e999]", ["NaN", "-Infinity", "1e999", "-1e999"]),
        (b'{"a": ' + b"1" * 5000 + b"}", {"a": "1" * 5000}),
        (b"[" + b"9" * 400 + b"]", [int("9" * 400)]),  # beyond every float, and an integer all the same
    ],
)
def test_json_is_read(body: bytes, expected: Any) -> None:
    """Values come as they are, or as text where JSON has no such number; all of it can be written as JSON again."""
    assert json_of(body, "what") == expected
    json.dumps(expected, ensure_ascii=False, allow_nan=False).encode()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"{'a': 1}",
        b"\xff",
        b"[" * 100_000,
        b"[" * 150 + b"]" * 150,
    ],
)
def test_what_is_no_json_is_a_bad_answer(body: bytes) -> None:
    """Another format, wrong bytes and bombs are refused in a short sentence."""
    with pytest.raises(BadAnswer, match="what: expected JSON, got") as caught:
        json_of(body, "what")
    assert len(str(caught.value)) < 600


def test_an_object_is_asked_for() -> None:
    """A list where an object is due is a bad answer that names both."""
    assert json_object(b'{"a": 1}', "what") == {"a": 1}
    with pytest.raises(BadAnswer, match="what: expected a JSON object, got list"):
        json_object(b"[]", "what")


def test_xml_is_read() -> None:
    """Elements, attributes and text come in whatever encoding the document declares."""
    root = xml_of('<?xml version="1.0" encoding="iso-8859-1"?><a b="1">ü</a>'.encode("latin-1"), "what")
    assert (root.tag, root.get("b"), root.text) == ("a", "1", "ü")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"text",
        b"<a><b></a>",
        b"<a>\x07</a>",
        b'<?xml version="1.0" encoding="no-such"?><a/>',
        b'<!DOCTYPE a [<!ENTITY x "y">]><a>&x;</a>',
        b'<!DOCTYPE a SYSTEM "http://127.0.0.1/x"><a/>',
        b"<!DOCTYPE html><html></html>",
        b"<a>&x;</a>",
    ],
)
def test_what_is_no_plain_xml_is_a_bad_answer(body: bytes) -> None:
    """Broken XML, unknown encodings, DTDs and entities are refused before anything is resolved."""
    with pytest.raises(BadAnswer, match="what: expected XML, got"):
        xml_of(body, "what")


def test_csv_is_read_by_its_header() -> None:
    """Columns are found by name, in any case and order; quotes, empty lines and a byte order mark are no trouble."""
    body = b'\xef\xbb\xbfStart, ID ,note\r\n2026,a,"x, ""y"""\r\n\r\n2027,b,\r\n'
    rows, faults = csv_of(body, COLUMNS, "what")
    assert rows == [{"start": "2026", "id": "a", "note": 'x, "y"'}, {"start": "2027", "id": "b", "note": ""}]
    assert faults == []


def test_rows_of_the_wrong_width_are_told() -> None:
    """A row with too few or too many fields costs itself only, and its line is named."""
    rows, faults = csv_of(b"id,start\na\nb,1,2\nc,1\n", COLUMNS, "what")
    assert rows == [{"id": "c", "start": "1"}]
    assert faults == ["line 2 has 1 fields, the header 2", "line 3 has 3 fields, the header 2"]


@pytest.mark.parametrize(
    ("body", "good", "fault"),
    [
        (b'id,start\na,"1\nb,2\n', ["b"], "line 2 has a quote that never ends"),
        (b'id,start\na,"x"y\nb,"2\n\nc,3\n', ["a", "c"], "line 3 has a quote that never ends"),
        (b"id,start\na," + b"x" * 200_000 + b"\r\nb,2", ["b"], "line 2 has 0 fields, the header 2"),
        ('id,start\na\x0c\u2028,1\nb,"\n'.encode(), ["a\x0c\u2028"], "line 3 has a quote that never ends"),
    ],
)
def test_quotes_that_are_none_cost_their_line_alone(body: bytes, good: list[str], fault: str) -> None:
    """Where quoting cannot be followed each line stands for itself, and what is lost is named."""
    rows, faults = csv_of(body, COLUMNS, "what")
    assert [row["id"] for row in rows] == good
    assert faults == [fault]


def test_a_comma_too_many_is_no_fault() -> None:
    """Empty fields beyond the header are dropped; one that holds something makes the row unreadable."""
    rows, faults = csv_of(b"id,start\na,1,,\nb,,\nc,1,,x\n", COLUMNS, "what")
    assert rows == [{"id": "a", "start": "1"}, {"id": "b", "start": ""}]
    assert faults == ["line 4 has 4 fields, the header 2"]


def test_a_nul_is_replaced_not_fatal() -> None:
    """A zero byte inside a field does not stop the other rows."""
    assert csv_of(b"id,start\na\x00,1\n", COLUMNS, "what")[0] == [{"id": "a\ufffd", "start": "1"}]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "no column id, start; it begins an empty answer"),
        (b"id,begin\n", "no column start"),
        (b"<html>\x1b</html>", r"no column id, start; it begins '<html>\\x1b</html>'"),
        (b"id,start,ID\n", "stands twice"),
        (b'id,"start\na,1\n', "no column id, start"),
        (b"id,start," + b"x" * 200_000 + b"\na,1,2", "no column id, start"),
    ],
)
def test_what_is_no_such_csv_is_a_bad_answer(body: bytes, said: str) -> None:
    """A missing or doubled column, or a header that cannot be read, is refused with how the answer begins."""
    with pytest.raises(BadAnswer, match=said):
        csv_of(body, COLUMNS, "what")


@pytest.mark.parametrize(
    "read", [lambda b: json_of(b, "w"), lambda b: xml_of(b, "w"), lambda b: csv_of(b, COLUMNS, "w")]
)
@given(body=st.binary(max_size=200) | st.text(alphabet='{}[]<>"&;,\n\r\\ua1-', max_size=60).map(str.encode))
def test_nothing_but_a_bad_answer_is_raised(read: Callable[[bytes], Any], body: bytes) -> None:
    """Whatever the bytes, these functions return or raise `BadAnswer`."""
    try:
        read(body)
    except BadAnswer as error:
        str(error).encode()


def test_text_is_read_from_any_bytes() -> None:
    """A byte order mark is dropped and unreadable bytes are replaced."""
    assert text_of(b"\xef\xbb\xbfa\xffb") == "a\ufffdb"


@pytest.mark.parametrize(
    ("head", "document"),
    [
        (b"<html>", True),
        (b" \r\n\t<?xml", True),
        (b"\xef\xbb\xbf {", True),
        (b"[1]", True),
        (b"RIFF", False),
        (b"", False),
        (b"ID3", False),
        (b"Not found", False),
    ],
)
def test_documents_are_told_from_audio_by_how_they_begin(head: bytes, document: bool) -> None:
    """HTML, XML and JSON begin with one of three signs, after a byte order mark and white space at most."""
    assert looks_like_a_document(head) is document
