"""What the store said: one answer, its S3 error where there is one, and the XML of listings.

Stores leave `Message` out, answer in HTML, or send an error inside a 200; all of that is read here, once. What an
answer means for the caller is `storage.s3.refusals`.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from urllib.parse import unquote_plus
from xml.etree import ElementTree as ET
from xml.etree.ElementTree import Element, ParseError

from defusedxml.ElementTree import fromstring as guarded

from storage.errors import StoreUnavailable

_BEGINS = re.compile(
    rb"""(?:<\?xml[ ]version=["']1\.0["'](?:[ ]encoding=["'](?:utf|UTF)-8["'])?(?:[ ]standalone=["']yes["'])?[ ]?\?>
    \s*)?<[A-Za-z]""",
    re.VERBOSE,
)
_MAX_TAGS = 200_000  # a page of 1,000 versions has some 30,000; each may take 250 bytes of memory


@dataclass(frozen=True, slots=True)
class Answer:
    """One complete answer. `error` holds the elements of S3's error document, and is empty where there was none."""

    status: int
    headers: Mapping[str, str]
    sent_at: datetime
    """The time our request was signed with."""
    body: bytes = b""
    error: Mapping[str, str] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether the store did what it was asked."""
        return self.status < 300 and not self.error

    @property
    def code(self) -> str:
        """S3's error code; empty where the body named none."""
        return self.error.get("Code", "")

    @property
    def version_id(self) -> str | None:
        """The version written or read; None where the bucket keeps none (`null` is S3's word for that)."""
        told = self.headers.get("x-amz-version-id")
        return None if told in (None, "", "null") else told

    @property
    def date(self) -> datetime | None:
        """The store's own clock."""
        return http_date(self.headers.get("Date", ""))


def http_date(text: str) -> datetime | None:
    """Read an HTTP date; None where it is none."""
    try:
        return _utc(parsedate_to_datetime(text))
    except (ValueError, OverflowError):  # overflow: an hour of 20 digits, the last day of 9999 with an offset
        return None


def _utc(moment: datetime) -> datetime:
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def error_in(body: bytes) -> dict[str, str]:
    """Return the elements of an S3 error document; empty for everything else, whatever it is."""
    try:
        root = _parse(body)
    except StoreUnavailable:
        return {}
    for element in (root, *root):
        if element.tag == "Error":
            found = {child.tag: (child.text or "").strip() for child in element}
            return found if found.get("Code") else {**found, "Code": "Error"}
    return {}


def document(body: bytes, root: str) -> Element:
    """Parse a listing or another XML answer, whose root must be `root`; namespaces are dropped.

    StoreUnavailable for anything else: a proxy's page with status 200 is trouble that passes.
    """
    found = _parse(body)
    if found.tag != root:
        raise StoreUnavailable(f"the store answered <{found.tag[:40]}> where {root} was expected")
    return found


def _parse(body: bytes) -> Element:
    if body.count(b"<") > _MAX_TAGS:
        raise StoreUnavailable(f"the store answered more than {_MAX_TAGS} XML tags, which no listing of a page has")
    body = body.strip()
    try:
        if _harmless(body):
            root: Element = ET.fromstring(body)  # noqa: S314 - there is nothing in it to guard against
        else:
            root = guarded(body, forbid_dtd=True)
    except (ParseError, ValueError, LookupError) as exc:  # ValueError: a DTD or entity; LookupError: an odd encoding
        raise StoreUnavailable("the store answered something that is not XML") from exc
    if b"xmlns" in body:
        for element in root.iter():
            element.tag = element.tag.rpartition("}")[2]
    return root


def _harmless(body: bytes) -> bool:
    """Tell whether a document can have neither a DTD nor an entity of its own, which is what needs guarding against.

    A DTD stands before the root element, or the document is not well-formed; here the root comes first, after no more
    than a declaration of UTF-8. The guarded parser takes three times as long.
    """
    return _BEGINS.match(body) is not None


def _decoded(text: str) -> str:
    plain = text.replace("%3D", "=").replace("%2F", "/")  # all that keys of ours have, and a tenth of the time
    return unquote_plus(text) if "%" in plain or "+" in plain else plain


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a listing: its rows, and the texts it gives on the way to the next."""

    root: Element
    encoded: bool = False
    """Whether its keys are written as in URLs."""

    @classmethod
    def of(cls, body: bytes, root: str) -> "Page":
        """Read a page whose root must be `root`; StoreUnavailable for anything else."""
        found = document(body, root)
        return cls(found, found.findtext("EncodingType") == "url")

    def rows(self, *tags: str) -> Iterator[Element]:
        """Iterate over the elements of these names, in the order in which they are listed."""
        return (element for element in self.root if element.tag in tags)

    def text(self, element: Element | None, tag: str) -> str:
        """Return the text of a child that must be there: StoreUnavailable otherwise."""
        found = (self.root if element is None else element).findtext(tag)
        if found is None:
            raise StoreUnavailable(f"the store's {self.root.tag} lacks {tag}")
        return found

    def key(self, element: Element | None, tag: str) -> str:
        """Return a key, decoded where the page says that it is encoded."""
        found = self.text(element, tag)
        return _decoded(found) if self.encoded else found

    def time(self, element: Element, tag: str) -> datetime:
        """Return a time in UTC."""
        told = self.text(element, tag)
        try:
            return _utc(datetime.fromisoformat(told))
        except (ValueError, OverflowError) as exc:
            raise StoreUnavailable(f"the store's {self.root.tag} has an unreadable {tag}: {told[:40]!r}") from exc

    def number(self, element: Element, tag: str) -> int:
        """Return a whole number."""
        told = self.text(element, tag)
        if not (told.isascii() and told.isdigit() and len(told) < 20):
            raise StoreUnavailable(f"the store's {self.root.tag} has an unreadable {tag}: {told[:40]!r}")
        return int(told)

    @property
    def more(self) -> bool:
        """Whether another page follows."""
        return self.root.findtext("IsTruncated", "").lower() == "true"
