"""Reading Link headers (RFC 8288): which address stands for which relation.

Where a link leads, and whether it may be followed, is `RestClient.own`.
"""

import re
from collections.abc import Mapping

_TEXT = r'"(?:[^"\\]|\\.)*"' + r"|'[^']*'"  # single quotes are not in the RFC, but are sent
_LINK = re.compile(rf"<([^>]*)>((?:[^,\"']|{_TEXT})*)")
_PARAM = re.compile(rf";\s*([^\s=;,]+)\s*=\s*({_TEXT}|[^\s;,]+)")


def links_of(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the addresses as they are written, by relation in lower case; the first one of a relation counts.

    Several Link headers are one list. What does not look like a link is passed over, so the result may be empty.
    """
    found: dict[str, str] = {}
    for value in (value for name, value in headers.items() if name.lower() == "link"):
        for address, parameters in _LINK.findall(value):
            for name, text in _PARAM.findall(parameters):
                if name.lower() == "rel":
                    for relation in text.strip("\"'").lower().split():
                        found.setdefault(relation, address.strip())
                    break  # a second `rel` of the same link is to be ignored (RFC 8288, 3.3)
    return found
