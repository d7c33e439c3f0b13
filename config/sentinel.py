"""The address of Redis behind Sentinels: who is asked where the primary is, what it is called, and who logs in.

One way of writing it for messages and for state:
`sentinel://[user:password@]host:port/db?master_name=NAME;sentinel://host:port;…`. The login is the data servers';
Sentinels that ask for one of their own get `sentinel_username` and `sentinel_password` beside `master_name`.
"""

from dataclasses import dataclass
from urllib.parse import parse_qsl, quote, unquote, urlsplit

_PORT = 26379
_OPTIONS = frozenset({"master_name", "sentinel_username", "sentinel_password"})
FORM = "sentinel://host:26379/0?master_name=NAME;sentinel://host:26379"


@dataclass(frozen=True, slots=True, repr=False)
class Sentinels:
    """What such an address says. It has no `repr`: it holds passwords."""

    hosts: tuple[tuple[str, int], ...]
    master_name: str
    db: int
    username: str | None
    password: str | None
    sentinel_login: dict[str, str]
    """`username` and `password` for the Sentinels themselves, where they ask for any."""

    def urls(self) -> list[str]:
        """Return an address for each Sentinel with everything in it that each must say for kombu, and no query."""
        login = ":".join(quote(word, safe="") for word in (self.username or "", self.password or ""))
        login = f"{login}@" if self.username or self.password else ""
        return [f"sentinel://{login}{_written(host)}:{port}/{self.db}" for host, port in self.hosts]


def is_sentinel(url: str) -> bool:
    """Tell whether the address is of this kind."""
    return url.partition("://")[0].lower() == "sentinel"


def read_sentinels(url: str) -> Sentinels:
    """Return what the address says. ValueError, in words that hold nothing of it, when it is not of this kind."""
    try:
        pieces = [urlsplit(piece) for piece in url.split(";")]
        hosts = tuple((piece.hostname or "", piece.port or _PORT) for piece in pieces)
        first, *others = pieces
        db = int(first.path.strip("/") or 0)
    except ValueError:
        raise ValueError("a host, a port or the number of the database cannot be read") from None
    if any(piece.scheme != "sentinel" for piece in pieces) or not all(host for host, _ in hosts):
        raise ValueError("each address between ; begins with sentinel:// and names a host")
    if any(piece.query or "@" in piece.netloc for piece in others):
        raise ValueError("login and options belong into the first address, before its ;")
    told = dict(parse_qsl(first.query))
    if not told.get("master_name"):
        raise ValueError("it lacks the name of the primary, ?master_name=NAME")
    if set(told) - _OPTIONS:
        raise ValueError(f"of options it knows {', '.join(sorted(_OPTIONS))} only")
    login = {"username": told.get("sentinel_username"), "password": told.get("sentinel_password")}
    return Sentinels(
        hosts=hosts,
        master_name=told["master_name"],
        db=db,
        username=unquote(first.username) if first.username else None,
        password=unquote(first.password) if first.password else None,
        sentinel_login={key: value for key, value in login.items() if value},
    )


def _written(host: str) -> str:
    return f"[{host}]" if ":" in host else host
