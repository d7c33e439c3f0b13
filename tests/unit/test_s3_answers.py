"""XML of the store: what could harm is refused however it is written, and what cannot is read the fast way."""

import pytest
from defusedxml.ElementTree import fromstring as guarded
from hypothesis import given
from hypothesis import strategies as st

from storage.errors import StoreUnavailable
from storage.s3.answers import Page, _harmless, document

LAUGHS = """<!DOCTYPE A [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;">]><A><B>&b;</B></A>"""
OUTSIDE = """<!DOCTYPE A [<!ENTITY x SYSTEM "file:///etc/hostname">]><A><B>&x;</B></A>"""


@pytest.mark.parametrize("text", [LAUGHS, OUTSIDE, "<!DOCTYPE A><A/>"], ids=["laughs", "outside", "a bare DTD"])
@pytest.mark.parametrize(
    ("encoding", "declared"),
    [
        ("utf-8", None),
        ("utf-8", "UTF-8"),
        ("utf-8-sig", None),
        ("utf-16", None),
        ("utf-16", "UTF-16"),
        ("utf-16-le", "UTF-16LE"),
        ("utf-16-be", "UTF-16BE"),
        ("utf-32", "UTF-32"),
        ("utf-7", "UTF-7"),
        ("cp037", "cp037"),
        ("cp500", "IBM500"),
        ("latin-1", "ISO-8859-1"),
        ("shift-jis", "Shift_JIS"),
    ],
)
def test_no_dtd_and_no_entity_gets_through(text: str, encoding: str, declared: str | None) -> None:
    """In no encoding: a listing has none."""
    head = f'<?xml version="1.0" encoding="{declared}"?>' if declared else ""
    with pytest.raises(StoreUnavailable, match="not XML"):
        document((head + text).encode(encoding), "A")


@pytest.mark.parametrize(
    "body",
    [
        b"<A><B>&c;</B></A>",
        b"<A>",
        b"",
        b"<A></A><A/>",
        b"<A/><!DOCTYPE A>",
        b'<A><!DOCTYPE A [<!ENTITY a "ha">]>&a;</A>',
        b"<A>\xff</A>",
        b'<?xml version="1.0" encoding="UTF-8"?><?xml version="1.0" encoding="cp037"?><A/>',
    ],
)
def test_what_is_not_well_formed_is_trouble(body: bytes) -> None:
    """The fast way is as strict as the other."""
    with pytest.raises(StoreUnavailable, match="not XML"):
        document(body, "A")


@pytest.mark.parametrize(
    ("head", "fast"),
    [
        (b"", True),
        (b'<?xml version="1.0" encoding="UTF-8"?>\n', True),
        (b"<?xml version='1.0' encoding='utf-8'?>", True),
        (b'<?xml version="1.0"?>\n', True),
        (b'<?xml version="1.0" encoding="UTF-8" standalone="yes"?>\n', True),
        (b'<?xml version="1.0" encoding="ISO-8859-1"?>', False),
        (b'<?xml version="1.0" encoding="ascii"?>', False),
        (b"<!-- hello -->", False),
        (b"<?style sheet?>", False),
    ],
)
def test_what_is_harmless_goes_the_fast_way(head: bytes, fast: bool) -> None:
    """As stores begin their answers; anything else goes the guarded way, and is read all the same."""
    body = head + b'<A xmlns="urn:a"><B xmlns:c="urn:c"><c:D>1 &amp; 2</c:D></B></A>'
    assert _harmless(body) is fast
    assert document(body, "A").findtext("B/D") == "1 & 2"


@given(st.lists(st.tuples(st.text("ab&<>\"'é ", max_size=8), st.integers(0, 9)), max_size=5))
def test_both_ways_read_the_same(rows: list[tuple[str, int]]) -> None:
    """Text, numbers and their order."""
    from xml.sax.saxutils import escape

    body = f"<A>{''.join(f'<B><C>{escape(text)}</C><D>{n}</D></B>' for text, n in rows)}</A>".encode()
    assert _harmless(body)
    found, expected = document(body, "A"), guarded(body, forbid_dtd=True)
    assert [(e.tag, e.text) for e in found.iter()] == [(e.tag, e.text) for e in expected.iter()]


@given(st.text(max_size=30))
def test_keys_are_decoded(key: str) -> None:
    """Whatever is in them, as S3 encodes them."""
    from urllib.parse import quote_plus

    body = f"<L><EncodingType>url</EncodingType><R><Key>{quote_plus(key)}</Key></R></L>".encode()
    page = Page.of(body, "L")
    assert [page.key(row, "Key") for row in page.rows("R")] == [key]
