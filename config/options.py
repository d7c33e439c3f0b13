"""A vendor's own keys: read from a source's table into the pydantic model that the vendor declares.

The model decides what is right; this file resolves its secrets and turns pydantic's errors into sentences.
The keys that all sources share are `config.load`.
"""

from collections.abc import Mapping
from typing import Any, get_args

from pydantic import SecretStr, ValidationError

from config.mistakes import Mistakes, Wrong, shown
from config.redact import Redactor
from config.secret import Surroundings
from config.settings import VendorOptions


def is_secret(model: type[VendorOptions], key: str) -> bool:
    """Say whether a key of the model holds a secret."""

    def within(annotation: Any) -> bool:
        return annotation is SecretStr or any(within(inner) for inner in get_args(annotation))

    return within(model.model_fields[key].annotation)


def read_options(
    at: str, told: Mapping[str, object], model: type[VendorOptions], around: Surroundings, mistakes: Mistakes
) -> VendorOptions | None:
    """Return the vendor's own keys of one source; None when something is wrong, which `mistakes` then says."""
    values: dict[str, object] = {}
    unresolved: set[str] = set()
    for key in (k for k in model.model_fields if k in told):
        values[key] = told[key]
        if is_secret(model, key):
            try:
                values[key] = around.secret(told[key])
            except Wrong as wrong:
                mistakes.add(at, key, str(wrong))
                unresolved.add(key)
                values[key] = SecretStr("unresolved")  # is given, so that no validator complains of its absence
    try:
        options = model.model_validate(values)
    except ValidationError as error:
        hidden = Redactor(v.get_secret_value() for v in values.values() if isinstance(v, SecretStr))
        for found in error.errors(include_url=False, include_input=False):
            key = str(found["loc"][0]) if found["loc"] else ""
            if key not in unresolved:
                sentence = hidden.known(_sentence(found["type"], found["msg"], key, told.get(key), model))
                mistakes.add(at, key or _named(model, sentence), sentence)
        return None
    return None if unresolved else options


def _named(model: type[VendorOptions], sentence: str) -> str:
    """Return the keys that a rule about several of them speaks of; all, where it names none."""
    return ", ".join([k for k in model.model_fields if k in sentence] or model.model_fields)


def _sentence(kind: str, message: str, key: str, value: object, model: type[VendorOptions]) -> str:
    if kind == "missing":
        sample = '{ env = "NAME" }' if is_secret(model, key) else '"…"'
        return f"missing; write {key} = {sample}"
    if kind in ("value_error", "assertion_error"):  # the vendor's own words
        return message.removeprefix("Value error, ").removeprefix("Assertion failed, ")
    if kind == "string_type":
        return f"a text in quotes is expected, found {shown(value)}"
    plain = message[0].lower() + message[1:]
    return plain if not key or is_secret(model, key) else f"{plain}, found {shown(value)}"
