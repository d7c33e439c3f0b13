"""The connectors, one file each. A file that is here is registered; nothing else names it."""

import importlib
import pkgutil
from collections.abc import Mapping
from functools import cache

from config.settings import VendorKeys
from worker.vendor import Vendor


@cache
def load_vendors() -> Mapping[str, type[Vendor]]:
    """Return every connector beside this file by its name, which is also the file's."""
    found: dict[str, type[Vendor]] = {}
    for module in pkgutil.iter_modules(__path__):
        vendor: type[Vendor] = importlib.import_module(f"{__name__}.{module.name}").VENDOR
        if vendor.info.name != module.name:
            raise ValueError(f"worker/vendors/{module.name}.py calls itself {vendor.info.name!r}")
        found[module.name] = vendor
    return found


def vendor_keys() -> Mapping[str, VendorKeys]:
    """Return what the configuration must know of each vendor."""
    return {
        name: VendorKeys(v.info.options, v.info.needs_timezone, v.info.default_requests_per_second)
        for name, v in load_vendors().items()
    }
