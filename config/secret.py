"""Where secrets and certificates come from: environment variables and files, as seen from the configuration file.

A secret's value is never part of a message. How values without secrets are read is `config.values`.
"""

import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretStr

from config.mistakes import Wrong, quoted
from config.values import queue_address, text

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_LARGEST = 64 * 1024  # bytes; a secret is a line, not a file system

_FORMS = '{ env = "NAME" } or { file = "PATH" }'


@dataclass(frozen=True)
class Surroundings:
    """What a configuration file refers to: the folder it lies in and the process's environment."""

    folder: Path
    environ: Mapping[str, str]

    def path(self, value: object) -> Path:
        """Return a path; a relative one starts at the configuration file's folder."""
        return self.folder / text(value)

    def secret(self, value: object) -> SecretStr:
        """Return the secret that `{ env = … }` or `{ file = … }` names; one trailing newline of a file is dropped."""
        if not isinstance(value, dict):
            raise Wrong(f"a secret is never written here; write {_FORMS}")
        if set(value) == {"env"}:
            return SecretStr(_one_line(self._from_environment(value["env"])))
        if set(value) == {"file"}:
            return SecretStr(_one_line(self._from_file(self.path(value["file"]))))
        raise Wrong(f"a secret has one key, env or file; write {_FORMS}")

    def queue(self, schemes: tuple[str, ...], value: object) -> SecretStr:
        """Return a broker's address, which may hold a password and may be written plainly all the same."""
        told = text(value) if isinstance(value, str) else self.secret(value).get_secret_value()
        return SecretStr(queue_address(schemes)(told))

    def certificates(self, value: object) -> Path:
        """Return the path of a file of CA certificates that can be read and holds at least one."""
        path = self.path(value)
        try:
            ssl.create_default_context(cafile=str(path))
        except ssl.SSLError:
            raise Wrong(f"{quoted(path)} holds no certificate in PEM form (-----BEGIN CERTIFICATE-----)") from None
        except (OSError, ValueError) as error:
            raise Wrong(_unreadable(path, error)) from None
        return path

    def _from_environment(self, name: object) -> str:
        if not isinstance(name, str) or not _VARIABLE.fullmatch(name):
            # whatever it is, it may be the secret itself
            raise Wrong("env is not the name of an environment variable (letters, digits and _)")
        value = self.environ.get(name)
        if not value:
            state = "empty" if value == "" else "not set"
            raise Wrong(f"the environment variable {name} is {state}; set it, or name another")
        return value

    def _from_file(self, path: Path) -> str:
        try:
            with path.open("rb") as file:
                raw = file.read(_LARGEST + 1)
            value = raw.decode()
        except UnicodeDecodeError:
            raise Wrong(f"the file {quoted(path)} is not UTF-8 text; it must hold the secret alone") from None
        except (OSError, ValueError) as error:  # a path with a NUL is a ValueError
            raise Wrong(_unreadable(path, error)) from None
        if len(raw) > _LARGEST:
            raise Wrong(f"the file {quoted(path)} is larger than 64 KiB; it must hold the secret alone")
        value = value.removesuffix("\n").removesuffix("\r") if value.endswith("\n") else value
        if not value:
            raise Wrong(f"the file {quoted(path)} is empty; it must hold the secret")
        return value


def _one_line(secret: str) -> str:
    """Return the secret; no phone system and no store takes one that is broken over lines."""
    if set(secret) & set("\r\n\0"):
        raise Wrong("the secret holds a line break; it must be one line, and nothing else")
    return secret


def _unreadable(path: Path, error: Exception) -> str:
    reason = (error.strerror if isinstance(error, OSError) else None) or "not a path"
    return f"the file {quoted(path)} cannot be read ({reason.lower()})"
