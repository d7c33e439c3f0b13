"""Where requests go: path style, virtual-host style, encoding."""

import pytest

from config.settings import Archive
from storage.s3.address import address_of


@pytest.mark.parametrize(
    ("told", "url", "host"),
    [
        ({}, "https://calls.s3.us-east-1.amazonaws.com/k", "calls.s3.us-east-1.amazonaws.com"),
        ({"region": "eu-west-1"}, "https://calls.s3.eu-west-1.amazonaws.com/k", "calls.s3.eu-west-1.amazonaws.com"),
        ({"region": "cn-north-1"}, "https://calls.s3.cn-north-1.amazonaws.com.cn/k", None),
        ({"bucket": "a.b"}, "https://s3.us-east-1.amazonaws.com/a.b/k", "s3.us-east-1.amazonaws.com"),
        ({"endpoint_url": "https://S3.example.net/"}, "https://s3.example.net/calls/k", "s3.example.net"),
        ({"endpoint_url": "https://s3.example.net:443"}, "https://s3.example.net/calls/k", "s3.example.net"),
        ({"endpoint_url": "http://s3.example.net:80"}, "http://s3.example.net/calls/k", "s3.example.net"),
        ({"endpoint_url": "http://127.0.0.1:9000"}, "http://127.0.0.1:9000/calls/k", "127.0.0.1:9000"),
        ({"endpoint_url": "http://[::1]:9000"}, "http://[::1]:9000/calls/k", "[::1]:9000"),
        ({"endpoint_url": "https://gate.example.net/s3 a"}, "https://gate.example.net/s3%20a/calls/k", None),
    ],
)
def test_where_a_bucket_answers(told: dict[str, str], url: str, host: str | None) -> None:
    """An endpoint is spoken to in path style, AWS by the bucket's own host unless its name has dots."""
    address = address_of(Archive(**{"bucket": "calls", **told}))
    assert address.url("k") == url
    assert host in (None, address.host)


def test_keys_and_queries_are_encoded_as_they_are_signed() -> None:
    """Slashes and tildes stay, all else outside the unreserved characters is percent-encoded."""
    address = address_of(Archive(bucket="calls", endpoint_url="http://h"))
    assert address.url("v1/a~2F b+é") == "http://h/calls/v1/a~2F%20b%2B%C3%A9"
    assert address.url("", {"uploads": "", "prefix": "a/b c"}) == "http://h/calls/?uploads&prefix=a%2Fb%20c"
