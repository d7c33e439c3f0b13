"""Link headers as phone systems send them."""

import pytest
from multidict import CIMultiDict

from worker.rest.links import links_of


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ('<https://a.example.net/r?page=1&size=25>; rel="next"', {"next": "https://a.example.net/r?page=1&size=25"}),
        ("<r?page=0>;rel='first',<r?page=2>;rel='next'", {"first": "r?page=0", "next": "r?page=2"}),
        ("<r?page=0>; rel=first, <r?a=1,2>; rel=NEXT", {"first": "r?page=0", "next": "r?a=1,2"}),
        ('<r>; title="a, <b>; rel=\\"next\\""; rel="last"', {"last": "r"}),
        ('<r>; rel="next last"; rel="prev"', {"next": "r", "last": "r"}),
        ('<a>; rel="next", <b>; rel="next"', {"next": "a"}),
        ("<a>; title=none", {}),
        ('page 2; rel="next"', {}),
        ("", {}),
    ],
)
def test_links_are_read_by_relation(header: str, expected: dict[str, str]) -> None:
    """Every spelling that was seen, and those the RFC allows, give the addresses by relation."""
    assert links_of({"Link": header}) == expected


def test_several_headers_are_one_list() -> None:
    """A next link in a second Link header is not overlooked."""
    headers = CIMultiDict([("link", '<a>; rel="first"'), ("Server", "x"), ("LINK", '<b>; rel="next"')])
    assert links_of(headers) == {"first": "a", "next": "b"}
