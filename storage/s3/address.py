"""Where a bucket answers: the URL of each request. Pure functions; sending is `storage.s3.transport`."""

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote, urlsplit

from config.settings import Archive

DEFAULT_REGION = "us-east-1"
"""What most stores other than AWS expect to be signed for when they do not care."""


@dataclass(frozen=True, slots=True)
class Address:
    """One bucket's place."""

    bucket: str
    region: str
    base: str
    """Scheme, host and, where it belongs to the path, the bucket; no slash at the end."""
    host: str
    """The Host header, port included where it is not the scheme's own."""

    def url(self, key: str = "", query: Mapping[str, str] | None = None) -> str:
        """Return the URL of a key, or of the bucket itself; percent-encoded as it is signed."""
        asked = "&".join(
            f"{quote(n, safe='')}={quote(v, safe='')}" if v else quote(n) for n, v in (query or {}).items()
        )
        return f"{self.base}/{quote(key, safe='/')}" + (f"?{asked}" if asked else "")


def address_of(archive: Archive) -> Address:
    """Return where the archive's bucket answers.

    Path style for an `endpoint_url`, since few stores but AWS own a certificate for every bucket's host name; on AWS
    virtual-host style, except for names with dots, which its wildcard certificate does not cover.
    """
    region = archive.region or DEFAULT_REGION
    if archive.endpoint_url:
        root, in_path = archive.endpoint_url.rstrip("/"), True
    else:
        domain = "amazonaws.com.cn" if region.startswith("cn-") else "amazonaws.com"
        in_path = "." in archive.bucket
        root = f"https://s3.{region}.{domain}" if in_path else f"https://{archive.bucket}.s3.{region}.{domain}"
    parts = urlsplit(root)
    host = parts.netloc.rpartition("@")[2].lower()
    if parts.port == {"http": 80, "https": 443}.get(parts.scheme):
        host = host.rpartition(":")[0]
    base = f"{parts.scheme}://{host}{quote(parts.path, safe='/%')}"
    return Address(archive.bucket, region, f"{base}/{quote(archive.bucket)}" if in_path else base, host)
