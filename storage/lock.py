"""A lock on one version of an object: how strongly, and until when. Pure; locks only ever grow."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from config.retention import LockMode
from storage.errors import NoObjectLock

_TOO_SHORT = timedelta(minutes=20)  # longer than a recording takes to be written: S3 refuses a date that has passed

_MAKE_ONE = (
    "Make a bucket that has it, with `aws s3api create-bucket --bucket NAME --object-lock-enabled-for-bucket` (and"
    " --create-bucket-configuration LocationConstraint=REGION outside us-east-1), and name it in archive.bucket"
)


@dataclass(frozen=True, slots=True)
class Lock:
    """S3 Object Lock, as it is asked for and as it stands. `until` is an aware time of whole seconds."""

    mode: LockMode
    until: datetime

    def lasts(self, now: datetime) -> bool:
        """Tell whether it can still be asked for: S3 refuses a lock that ends before it arrives."""
        return self.until > now + _TOO_SHORT

    def covers(self, other: "Lock") -> bool:
        """Tell whether this lock is at least as strong and as long."""
        return self.joined(other) == self

    def joined(self, other: "Lock | None") -> "Lock":
        """Return the lock that keeps what both promise: the stronger mode, the later date."""
        if other is None:
            return self
        compliance = LockMode.COMPLIANCE in (self.mode, other.mode)
        return Lock(LockMode.COMPLIANCE if compliance else LockMode.GOVERNANCE, max(self.until, other.until))

    def on(self, standing: "Lock | None") -> "Lock":
        """Return what a version that has this lock standing is to carry: its own mode, the later date.

        Changing the mode of a lock, even to the stronger one, takes the right to bypass locks, which callvault must
        not have.
        """
        if standing is None:
            return self
        return Lock(standing.mode, max(self.until, standing.until))


def no_object_lock(bucket: str, key: str = "") -> NoObjectLock:
    """Return the error for a bucket that can lock nothing although the configuration has a mode."""
    return NoObjectLock(
        f"bucket {bucket} has no Object Lock, and [retention] has a mode: nothing in it could be locked. {_MAKE_ONE};"
        ' or write mode = "none"',
        key,
    )


def no_legal_hold(bucket: str, key: str = "") -> NoObjectLock:
    """Return the error for a bucket that can hold nothing although a matter is to be placed."""
    return NoObjectLock(f"bucket {bucket} has no Object Lock: nothing in it could be held. {_MAKE_ONE}", key)
