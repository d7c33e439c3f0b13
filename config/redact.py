"""Taking secrets out of what is about to be shown: by a field's name, by known values, by what credentials look like.

It copies and never changes what it is given. The log's formatter (`config.logs`) passes everything through it.
"""

import base64
import hashlib
import html
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import date, time
from functools import lru_cache
from pathlib import PurePath
from urllib.parse import quote, quote_plus

from pydantic import SecretStr

MASK = "***"
LONGEST = 512
"""Characters of one field that are kept."""

_LONGEST_READ = 64 * 1024  # characters of one text that are looked at; what is beyond is dropped unseen
_DEEPEST = 6  # nested mappings and lists
_MOST_ITEMS = 50  # of one mapping or list
_SHORT = 4  # a secret of fewer characters is masked where it stands alone, or it would mask half of each word

_DENIED = re.compile(
    r"token|secret|passw|passphrase|pwd|authorization|cookie|signature|credential|x-amz-|api-?key|access-?key|"
    r"private-?key|^random$"
)
"""Names of fields that are never shown, written in lower case with `-` for `_`. Object keys (`key`) are shown."""

_NAMES = (
    # no more before the word than real names have: without a bound, 64 KiB of hyphens would take minutes
    r"(?:[a-z-]{0,32}(?:token|password|secret|signature)|passwd|pwd|sig|random|api[_-]?key|"
    r"(?:aws)?access[_-]?key(?:[_-]?id)?|credential|x-amz-[a-z0-9-]+|authorization|cookie|set-cookie)"
)
_PATTERNS = tuple(
    (re.compile(pattern, re.IGNORECASE), instead)
    for pattern, instead in (
        # Authorization: Bearer abc, Basic dXNlcjpwYXNz
        (r"\b(Bearer|Basic)(\s+)[A-Za-z0-9+/=._~-]+", rf"\1\2{MASK}"),
        # redis://user:password@host
        (r"://[^\s/?#\"']*@", f"://{MASK}@"),
        # ?token=abc, &X-Amz-Signature=…, <Response token="abc">, api_key='abc'
        (rf"(?<![A-Za-z0-9])({_NAMES})=(\"[^\"]*\"|'[^']*'|[^\s&\"'<>;,)\]}}]+)", rf"\1={MASK}"),
        # {"token": "abc"} and the same as Python prints it
        (rf"([\"']{_NAMES}[\"']\s*:\s*)b?(\"(?:\\.|[^\"\\])*\"|'(?:\\.|[^'\\])*')", rf'\1"{MASK}"'),
        # Cookie: a=b; c=d
        (r"\b((?:set-)?cookie|authorization|x-amz-security-token)(:\s*)[^\r\n\"']+", rf"\1\2{MASK}"),
    )
)

_BARE = re.compile(r"[^\s:=]*")  # of such a text no pattern has anything to say: each wants one of the three


class Redactor:
    """Masks the given secrets, in whatever form they turn up, and whatever looks like a credential."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        forms = {form for secret in secrets if secret for form in _forms(secret)}
        self._forms = sorted(forms, key=lambda form: (-len(form), form))
        self._bare = {form.replace("\\", "") for form in self._forms}
        self._known = re.compile("|".join(map(_alone, self._forms)))

    def may_be_in(self, json_text: str) -> bool:
        """Tell, quickly, whether JSON may hold one of the given secrets, however often it is escaped in it."""
        bare = json_text.replace("\\", "")
        return any(form in bare for form in self._bare)

    def known(self, text: str) -> str:
        """Return text without the given secrets, patterns aside; not cut."""
        found = any(form in text for form in self._forms)  # far faster than the pattern, and nearly always no
        return self._known.sub(MASK, text) if found else text

    def text(self, text: str, longest: int = LONGEST) -> str:
        """Return text without secrets, its first `longest` characters."""
        return _cut(self._clean(text), longest)

    def tail(self, text: str, longest: int) -> str:
        """Return text without secrets, its last `longest` characters: of a traceback the end says most."""
        clean = self._clean(text[-_LONGEST_READ:])
        return clean if len(clean) <= longest else f"…{clean[-longest:]}"

    def value(self, value: object, depth: int = 0) -> object:
        """Return a copy that JSON can hold, without secrets: long texts cut, deep nesting and long lists too."""
        match value:
            case None | bool() | int():
                return value
            case float():
                return value if math.isfinite(value) else str(value)
            case str():
                return self.text(value)
            case SecretStr():
                return MASK
            case bytes() | bytearray() | memoryview():
                return self.text(bytes(value[:_LONGEST_READ]).decode("utf-8", "backslashreplace"))
            case date() | time():
                return value.isoformat()
            case PurePath():
                return self.text(str(value))
            case BaseException():
                return self.text(f"{type(value).__name__}: {value}")
            case _ if depth >= _DEEPEST:
                return "…"
            case Mapping():
                return dict(self._items(value, depth))
            case list() | tuple() | set() | frozenset():
                return [self.value(item, depth + 1) for item in list(value)[:_MOST_ITEMS]]
            case _:
                return self.text(repr(value))

    def field(self, name: str, value: object, depth: int = 0) -> object:
        """Return the value as it may be shown under this name."""
        return MASK if _denied(name) and value is not None and not isinstance(value, bool) else self.value(value, depth)

    def _items(self, told: Mapping[object, object], depth: int) -> Iterator[tuple[str, object]]:
        for key, item in list(told.items())[:_MOST_ITEMS]:
            yield self.text(str(key)), self.field(str(key), item, depth + 1)

    def _clean(self, text: str) -> str:
        clean = self.known(text[:_LONGEST_READ])
        if _BARE.fullmatch(clean):
            return clean
        for pattern, instead in _PATTERNS:
            clean = pattern.sub(instead, clean)
        return clean


@lru_cache(maxsize=256)
def _denied(name: str) -> bool:
    return bool(_DENIED.search(name.lower().replace("_", "-")))


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[:longest]}…"


def _alone(form: str) -> str:
    plain = re.escape(form)
    return plain if len(form) >= _SHORT else rf"(?<![A-Za-z0-9]){plain}(?![A-Za-z0-9])"


def _forms(secret: str) -> Iterator[str]:
    """Yield the secret in the spellings it may travel in."""
    raw = secret.encode("utf-8", "surrogatepass")
    yield secret
    for encoded in (quote(raw), quote(raw, safe=""), quote_plus(raw)):
        yield encoded
        yield re.sub(r"%[0-9A-F]{2}", lambda match: match[0].lower(), encoded)
    yield repr(secret)[1:-1]
    yield json.dumps(secret)[1:-1]
    yield html.escape(secret)
    # Yeastar's login sends the password's MD5, which therefore opens the same door
    digest = hashlib.md5(raw, usedforsecurity=False).hexdigest()
    yield digest
    yield digest.upper()
    yield from _base64_forms(raw)


def _base64_forms(raw: bytes) -> Iterator[str]:
    """Yield what a secret leaves in base64 at each of the three places it can start, as in `user:password`."""
    for shift in range(3):
        padded = base64.b64encode(bytes(shift) + raw).rstrip(b"=").decode()
        start = (0, 2, 3)[shift]  # digits that the bytes before take part in
        whole = (shift + len(raw)) * 8 // 6  # digits that no byte after takes part in
        core = padded[start:whole]
        if len(core) >= 6:
            yield core
            yield core.replace("+", "-").replace("/", "_")
