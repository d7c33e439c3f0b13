"""Vendors' own keys as the configuration's contract lists them, for tests of the configuration alone."""

from typing import Literal, Self

from pydantic import SecretStr, model_validator

from config.settings import VendorKeys, VendorOptions


class VerbaShape(VendorOptions):
    api_key: SecretStr
    username: str | None = None
    password: SecretStr | None = None

    @model_validator(mode="after")
    def _both_or_neither(self) -> Self:
        if (self.username is None) != (self.password is None):
            raise ValueError("username and password belong together: give both, or neither")
        return self


class ImagicleShape(VendorOptions):
    username: str
    password: SecretStr
    on_hash_mismatch: Literal["quarantine", "warn"] = "quarantine"


class YeastarShape(VendorOptions):
    username: str
    password: SecretStr
    api_version: Literal["v1.1.0", "v2.0.0"] = "v1.1.0"


class XivoShape(VendorOptions):
    token: SecretStr
    path_prefix: str = ""


class CatapultShape(VendorOptions):
    user_id: str
    token: SecretStr
    secret: SecretStr


SHAPES = {
    "verba": VendorKeys(VerbaShape, needs_timezone=True),
    "imagicle": VendorKeys(ImagicleShape, needs_timezone=False),
    "yeastar": VendorKeys(YeastarShape, needs_timezone=True),
    "xivo": VendorKeys(XivoShape, needs_timezone=True),
    "catapult": VendorKeys(CatapultShape, needs_timezone=False, default_requests_per_second=1.0),
}
