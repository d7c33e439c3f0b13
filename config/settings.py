"""The typed settings of one process: what a configuration file says once it has been read and checked.

Reading the file, resolving secrets and explaining mistakes is `config.load`. What a vendor needs beyond the
common keys is declared by the vendor itself (`VendorOptions`) and handed in, so that a new phone system
touches nothing here.
"""

import hashlib
import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from urllib.parse import parse_qsl, unquote
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict, SecretStr

from config.retention import Retention

_USER_INFO = re.compile(r"://([^/?#;]*)@")

MIB = 1024 * 1024


class Frozen(BaseModel):
    """A value object: unknown keys are refused, nothing changes after it is read."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)


class VendorOptions(Frozen):
    """Base of each vendor's own keys, such as a user name; secrets are `SecretStr`."""


@dataclass(frozen=True, slots=True)
class VendorKeys:
    """What the configuration must know of a vendor: its own keys, and whether its times lack an offset."""

    options: type[VendorOptions]
    needs_timezone: bool
    default_requests_per_second: float | None = None


class Archive(Frozen):
    """Where recordings go: one bucket, one prefix, one set of credentials (or the usual AWS chain)."""

    bucket: str
    prefix: str = ""
    endpoint_url: str | None = None
    region: str | None = None
    access_key_id: SecretStr | None = None
    secret_access_key: SecretStr | None = None

    @property
    def namespace(self) -> str:
        """Twelve hex digits that name this archive, so that state of another bucket is never mistaken for its own."""
        told = "\n".join((self.endpoint_url or "aws", self.bucket, self.prefix))
        return hashlib.sha256(told.encode()).hexdigest()[:12]


class Broker(Frozen):
    """Where Celery's messages go. The URLs may carry a password, so they are secrets."""

    url: SecretStr
    state_url: SecretStr | None = None
    """Redis for leases, permits and watermarks where `url` is not Redis itself (RabbitMQ)."""


class Runtime(Frozen):
    """How this machine runs callvault."""

    state_dir: Path = Path(".callvault")
    processes: int | None = None
    """Worker processes of `up` and `worker`; by default one more than there are sources, 2 to 16."""
    part_bytes: int = 8 * MIB
    """Recordings up to this size go up in one PUT, larger ones in parts of it; 5 MiB is S3's least."""
    transfers: int = 8
    """Recordings archived at once by one process; times `part_bytes` this bounds its buffers."""


class Source(Frozen):
    """One account on one phone system."""

    name: str
    vendor: str
    url: str
    timezone: ZoneInfo | None = None
    schedule: str = "*/10 * * * *"
    lookback: timedelta = timedelta(hours=48)
    settle: timedelta = timedelta(minutes=2)
    start_from: datetime | None = None
    max_connections: int = 4
    requests_per_second: float | None = None
    ca_file: Path | None = None
    tls_fingerprint: str | None = None
    give_up_after: timedelta = timedelta(hours=72)
    max_recording_bytes: int = 2 * 1024 * MIB
    options: VendorOptions

    def secrets(self) -> list[str]:
        """Return the clear text of this source's secrets, for redaction and for nothing else."""
        values = (getattr(self.options, name) for name in type(self.options).model_fields)
        return [v.get_secret_value() for v in values if isinstance(v, SecretStr)]


class Settings(Frozen):
    """Everything one process was told."""

    archive: Archive
    broker: Broker | None = None
    runtime: Runtime = Runtime()
    retention: Retention = Retention()
    sources: tuple[Source, ...] = ()

    @property
    def worker_processes(self) -> int:
        """Return how many processes `up` and `worker` start: one for each source and one over, 2 to 16.

        So a source that hangs keeps one of them busy, never all.
        """
        return self.runtime.processes or min(max(2, len(self.sources) + 1), 16)

    @property
    def lanes(self) -> int:
        """Return how many processes may archive from one source at a time."""
        return max(1, self.worker_processes // max(1, len(self.sources)))

    def source(self, name: str) -> Source:
        """Return the source called `name`; KeyError when there is none."""
        for source in self.sources:
            if source.name == name:
                return source
        raise KeyError(name)

    def secrets(self) -> list[str]:
        """Return every secret of the configuration in clear text, for redaction and for nothing else."""
        found = [s for source in self.sources for s in source.secrets()]
        found += [k.get_secret_value() for k in (self.archive.access_key_id, self.archive.secret_access_key) if k]
        if self.broker:
            addresses = [u.get_secret_value() for u in (self.broker.url, self.broker.state_url) if u]
            found += [password for address in addresses for password in _passwords(address)]
        return [s for s in found if s]


def _passwords(address: str) -> list[str]:
    """Return what of a broker's address is secret, as it is written and as it is meant; its host is not."""
    written = [info.partition(":")[2] or info for info in _USER_INFO.findall(address)]
    # the query of an address of Sentinels ends before the second of them
    queries = {piece.partition("?")[2]: None for piece in (address, *address.split(";"))}
    asked = [value for query in queries for key, value in parse_qsl(query) if "password" in key]
    return [*written, *(unquote(password) for password in written), *asked]
