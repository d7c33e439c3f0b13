"""What may be written beside an object as `x-amz-meta-*`: plain ASCII, the same rule for every store."""

import re
from collections.abc import Mapping

_NAME = re.compile(r"[a-z0-9-]{1,64}")
_VALUE = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?")


def checked(metadata: Mapping[str, str] | None) -> dict[str, str]:
    """Return a copy. ValueError for names and values that stores or proxies between would change on the way.

    Names are lower-case letters, digits and hyphens (S3 lowers them); values are printable ASCII without outer blanks.
    """
    found = dict(metadata or {})
    for name, value in found.items():
        if not _NAME.fullmatch(name):
            raise ValueError(f"metadata name {name!r} is not made of lower-case letters, digits and hyphens")
        if not _VALUE.fullmatch(value):
            raise ValueError(f"metadata {name!r} has a value that is empty or not printable ASCII")
    return found
