"""Settings for tests that need some and do not care which: one bucket nobody listens at, sources of no vendor."""

from pathlib import Path
from zoneinfo import ZoneInfo

from pydantic import SecretStr

from config.settings import Archive, Broker, Runtime, Settings, Source, VendorOptions

NOBODY = "redis://:hush@127.0.0.1:1/0"
"""A broker that refuses connections; port 1 is never in use."""


def source(name: str = "hq", schedule: str = "*/10 * * * *", zone: str | None = None) -> Source:
    """Return a source that nobody polls."""
    return Source(
        name=name,
        vendor="xivo",
        url="https://pbx.example.net",
        schedule=schedule,
        timezone=ZoneInfo(zone) if zone else None,
        options=VendorOptions(),
    )


def settings(state_dir: Path, *sources: Source, url: str | None = NOBODY, state_url: str | None = None) -> Settings:
    """Return settings with these sources, or one called hq."""
    broker = Broker(url=SecretStr(url), state_url=SecretStr(state_url) if state_url else None) if url else None
    return Settings(
        archive=Archive(bucket="acme-calls", endpoint_url="http://127.0.0.1:1", region="eu-west-1"),
        broker=broker,
        runtime=Runtime(state_dir=state_dir),
        sources=sources or (source(),),
    )
