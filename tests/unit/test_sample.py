"""The file that `init` writes and the examples of deploy/ are right, complete, and fit the vendors that there are."""

import re
import tomllib
from dataclasses import fields, replace
from pathlib import Path

import certifi
import pytest

from config.options import is_secret
from config.retention import MATCHED, LockMode, Retention, Rule
from config.sample import sample_configuration
from config.settings import Archive, Broker, Runtime, Source
from tests.support.configuration import read
from worker.vendors import vendor_keys

VENDORS = ("catapult", "imagicle", "verba", "xivo", "yeastar")
EXAMPLES = Path(__file__).parents[2] / "deploy" / "examples"


def variables(toml: str) -> dict[str, str]:
    """Return an environment in which every variable that the file names is set."""
    return {
        name: "redis://127.0.0.1:6379/0" if name == "BROKER_URL" else f"secret of {name}"
        for name in re.findall(r'env = "(\w+)"', toml)
    }


def switched_on(toml: str) -> str:
    """Return the file with every setting that is off switched on; explanations begin with `# `."""
    return re.sub(r"^#(?=[a-z\[])", "", toml, flags=re.MULTILINE)


def test_there_are_five_vendors() -> None:
    """The sample and the examples speak of the vendors that callvault has."""
    assert sorted(vendor_keys()) == sorted(VENDORS)


def test_the_sample_is_right_as_it_is_written(tmp_path: Path) -> None:
    """What `init` writes loads once its variables are set, with one source, and its defaults are the real ones."""
    toml = sample_configuration()
    settings = read(tmp_path, toml, {"HQ_PASSWORD": "x"}, vendor_keys())
    assert [source.name for source in settings.sources] == ["hq"]
    assert settings.broker is None
    assert settings.retention == Retention()


def test_the_sample_is_right_with_everything_switched_on(tmp_path: Path) -> None:
    """Every setting that is off can be switched on as it stands: all five vendors, and all keys together."""
    toml = switched_on(sample_configuration())
    (tmp_path / "pbx-ca.pem").write_text(Path(certifi.where()).read_text())
    settings = read(tmp_path, toml, variables(toml), vendor_keys())
    assert sorted(source.vendor for source in settings.sources) == sorted(VENDORS)
    told = settings.retention
    assert told == replace(Retention(), mode=LockMode.GOVERNANCE, default=told.default, rules=told.rules)
    assert (str(told.default), len(told.rules)) == ("7y", 1)


def test_the_sample_explains_every_key() -> None:
    """No key of the settings or of a vendor is missing from the sample, and each stands below an explanation."""
    told = tomllib.loads(switched_on(sample_configuration()))
    assert told["archive"].keys() == Archive.model_fields.keys()
    assert told["broker"].keys() == Broker.model_fields.keys()
    assert told["runtime"].keys() == Runtime.model_fields.keys()
    assert told["retention"].keys() == {field.name for field in fields(Retention)}
    for rule in told["retention"]["rules"]:
        assert rule.keys() == {field.name for field in fields(Rule)}
        assert rule["match"].keys() == set(MATCHED)
    common = Source.model_fields.keys() - {"options"}
    assert common <= {key for source in told["sources"] for key in source}
    for source in told["sources"]:
        own = vendor_keys()[source["vendor"]].options.model_fields.keys()
        assert own <= source.keys() <= own | common
    first = switched_on(sample_configuration()).split("\n# Verba")[0].splitlines()
    keys = [number for number, line in enumerate(first) if re.match(r"[a-z_]+ =", line)]
    assert all(
        first[number - 1].startswith(("# ", "[[", "name", "ca_file", "access_key_id", "username")) for number in keys
    )


def test_the_defaults_shown_are_the_defaults(tmp_path: Path) -> None:
    """Where the sample says that a setting that is off shows its default, it does."""
    toml = re.sub(r"^#(?!(schedule|lookback|settle|max_connections|give_up|max_rec|prefix|part_|transf)).*$", "",
                  sample_configuration(), flags=re.MULTILINE)  # fmt: skip
    shown = read(tmp_path, re.sub(r"^#", "", toml, flags=re.MULTILINE), {"HQ_PASSWORD": "x"}, vendor_keys())
    plain = read(tmp_path, sample_configuration(), {"HQ_PASSWORD": "x"}, vendor_keys())
    assert shown == plain


@pytest.mark.parametrize("vendor", VENDORS)
def test_an_example_is_right(tmp_path: Path, vendor: str) -> None:
    """Each example of deploy/ loads once its variables are set, and with its settings that are off switched on."""
    toml = (EXAMPLES / f"{vendor}.toml").read_text()
    settings = read(tmp_path, toml, variables(toml), vendor_keys())
    assert [source.vendor for source in settings.sources] == [vendor]
    assert settings.sources[0].secrets() == [
        f"secret of {name}" for key in vendor_keys()[vendor].options.model_fields
        if is_secret(vendor_keys()[vendor].options, key)
        for name in re.findall(rf'^{key} = {{ env = "(\w+)"', toml, flags=re.MULTILINE)
    ]  # fmt: skip
    everything = switched_on(re.sub(r"^#ca_file.*\n", "", toml, flags=re.MULTILINE))  # excludes tls_fingerprint
    assert read(tmp_path, everything, variables(toml), vendor_keys()).broker


def test_every_example_is_tested() -> None:
    """One example for each vendor, no more and no fewer."""
    assert sorted(path.stem for path in EXAMPLES.glob("*.toml")) == sorted(VENDORS)
