"""Settings: what they show of themselves, and what they hand to the redactor."""

import pytest
from pydantic import SecretStr, ValidationError

from config.settings import Archive, Broker, Runtime, Settings, Source
from tests.support.vendor_shapes import VerbaShape, YeastarShape

HQ = Source(
    name="hq",
    vendor="yeastar",
    url="https://pbx.example.net",
    options=YeastarShape(username="api", password=SecretStr("hunter2")),
)


def test_a_source_is_found_by_name() -> None:
    """`source` gives the one of that name; another name is a KeyError."""
    settings = Settings(archive=Archive(bucket="acme"), sources=(HQ,))
    assert settings.source("hq") is HQ
    with pytest.raises(KeyError, match="branch"):
        settings.source("branch")


def test_secrets_are_handed_over_whole() -> None:
    """Every secret there is, and none that is absent, is on the redactor's list."""
    verba = Source(
        name="v", vendor="verba", url="https://v.example.net", options=VerbaShape(api_key=SecretStr("key-5550100"))
    )
    settings = Settings(
        archive=Archive(bucket="acme", access_key_id=SecretStr("AKIA1"), secret_access_key=SecretStr("s3-secret")),
        broker=Broker(url=SecretStr("amqp://guest:p%40ss@mq//"), state_url=SecretStr("redis://a?password=asked&db=1")),
        sources=(HQ, verba),
    )
    assert settings.secrets() == ["hunter2", "key-5550100", "AKIA1", "s3-secret", "p%40ss", "p@ss", "asked"]
    assert Settings(archive=Archive(bucket="acme")).secrets() == []


def test_a_broker_without_password_has_no_secret() -> None:
    """Its address may then be shown, which helps who looks for it; a bare token counts as a password."""
    archive = Archive(bucket="acme")
    assert Settings(archive=archive, broker=Broker(url=SecretStr("redis://127.0.0.1:6379/0"))).secrets() == []
    sentinels = Broker(url=SecretStr("sentinel://:one@a:1;sentinel://token@b:1"))
    assert Settings(archive=archive, broker=sentinels).secrets() == ["one", "token", "one", "token"]
    watched = Broker(url=SecretStr("sentinel://:one@a:1/0?master_name=x&sentinel_password=two;sentinel://b:1"))
    assert "two" in Settings(archive=archive, broker=watched).secrets()


def test_nothing_is_changed_or_added_after_reading() -> None:
    """Settings are frozen and refuse keys they do not know."""
    with pytest.raises(ValidationError, match="frozen"):
        HQ.name = "other"  # type: ignore[misc]  # the point of the test
    with pytest.raises(ValidationError, match="lookbak"):
        Source(name="x", vendor="y", url="z", options=HQ.options, lookbak=1)  # type: ignore[call-arg]  # the point


def test_an_archive_has_a_name_of_its_own() -> None:
    """State of one bucket or prefix is never taken for another's."""
    archives = [
        Archive(bucket="a"),
        Archive(bucket="b"),
        Archive(bucket="a", prefix="p/"),
        Archive(bucket="a", endpoint_url="https://s3.example.net"),
    ]
    names = {archive.namespace for archive in archives}
    assert len(names) == 4
    assert all(len(name) == 12 for name in names)
    assert Archive(bucket="a", region="eu-west-1").namespace == archives[0].namespace


def with_sources(count: int, processes: int | None = None) -> Settings:
    """Return settings with so many sources."""
    sources = tuple(HQ.model_copy(update={"name": f"s{number}"}) for number in range(count))
    return Settings(archive=Archive(bucket="acme"), runtime=Runtime(processes=processes), sources=sources)


def test_a_slow_source_leaves_a_process_to_the_others() -> None:
    """There is a worker process for each source and one over, 2 to 16, unless the configuration names a number."""
    assert [with_sources(count).worker_processes for count in (0, 1, 4, 40)] == [2, 2, 5, 16]
    assert with_sources(4, processes=3).worker_processes == 3
    assert [with_sources(*counts).lanes for counts in ((0, 4), (1, 4), (3, 4), (8, 4))] == [4, 4, 1, 1]
