"""What the process was told (settings, secrets) and how it reports (logging). Imports none of ours."""

from importlib.metadata import PackageNotFoundError, version


def callvault_version() -> str:
    """Return the installed version, such as `0.1.0`; `0+unknown` in a tree that was never installed."""
    try:
        return version("callvault")
    except PackageNotFoundError:
        return "0+unknown"
