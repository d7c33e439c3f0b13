"""Debian's redis-server for tests, as its users run it: over TLS, with an ACL file, followed by a replica, watched by a
Sentinel.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import redis

from tests.support.binaries import need
from tests.support.redis_like import RedisLike


class RedisServer(RedisLike):
    """A context manager. Options are those of redis.conf, with `_` for `-`.

    `certificate`: it speaks TLS only and shows this one, which lies beside its key as `own_certificate` leaves them.
    `users`: lines of an ACL file; the user `default` keeps all rights, for the tests themselves.
    `replica_of`: it follows that server. `password`: everybody has to give it, replicas and their primary included.
    """

    def __init__(
        self,
        folder: Path,
        *,
        certificate: Path | None = None,
        users: Sequence[str] = (),
        replica_of: RedisLike | None = None,
        password: str | None = None,
        sentinel_of: RedisLike | None = None,
        lines: Sequence[str] = (),
        **options: str,
    ) -> None:
        self._certificate = certificate
        if users:
            folder.mkdir(parents=True, exist_ok=True)
            rules = folder / "users.acl"
            rules.write_text("".join(f"{line}\n" for line in ("user default on nopass ~* &* +@all", *users)))
            options["aclfile"] = str(rules)
        if replica_of:
            options |= {"replicaof": f"127.0.0.1 {replica_of.port}", "repl_diskless_sync_delay": "0"}
        self._password = password
        if password and sentinel_of:
            lines = [*lines, f"requirepass {password}"]
        elif password:
            options |= {"requirepass": password, "masterauth": password}
        super().__init__(folder, sentinel_of=sentinel_of, lines=lines, **options)

    def binary(self) -> Path:
        return need("redis-server")["redis-server"]

    @property
    def url(self) -> str:
        if self._certificate:
            return f"rediss://127.0.0.1:{self.port}/0?ssl_ca_certs={self._certificate}"
        return super().url

    def client(self, **options: Any) -> redis.Redis:
        told = {"ssl": True, "ssl_ca_certs": str(self._certificate)} if self._certificate else {}
        return super().client(**{"password": self._password, **told, **options})

    def _listening(self) -> list[str]:
        if not self._certificate:
            return super()._listening()
        key = self._certificate.with_name("key.pem")
        files = [f"tls-cert-file {self._certificate}", f"tls-key-file {key}", f"tls-ca-cert-file {self._certificate}"]
        return ["port 0", f"tls-port {self.port}", "tls-auth-clients no", *files]
