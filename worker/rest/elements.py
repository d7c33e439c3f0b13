"""Reading XML documents whose shape is not documented: elements by name, in any case, without their namespace.

Parsing, with DTDs and entities refused, is `worker.rest.decode`. Pure functions.
"""

from collections.abc import Mapping
from typing import Any
from xml.etree.ElementTree import Element

_DEEPEST = 20  # levels kept apart; what is nested deeper becomes one text


def tag_of(element: Element) -> str:
    """Return an element's name without its namespace, in lower case."""
    return str(element.tag).rpartition("}")[2].lower()


def fields_of(element: Element) -> dict[str, str]:
    """Return the texts of an element's children by name in lower case; of equal names the first."""
    found: dict[str, str] = {}
    for child in element:
        if text := (child.text or "").strip():
            found.setdefault(tag_of(child), text)
    return found


def first_of(fields: Mapping[str, str], *names: str) -> str | None:
    """Return the first of these fields that is there."""
    return next((fields[name] for name in names if name in fields), None)


def plain(element: Element, depth: int = 0) -> dict[str, Any]:
    """Return an element as JSON: attributes as `@name`, equal names as a list, text beside either as `#text`."""
    made: dict[str, Any] = {f"@{name}": value for name, value in element.attrib.items()}
    for child in element:
        name = str(child.tag).rpartition("}")[2]
        flat = depth == _DEEPEST or not (len(child) or child.attrib)
        value = "".join(child.itertext()) if flat else plain(child, depth + 1)
        if name not in made:
            made[name] = value
        elif isinstance(made[name], list):
            made[name].append(value)
        else:
            made[name] = [made[name], value]
    if (text := (element.text or "").strip()) and depth:
        made["#text"] = text
    return made
