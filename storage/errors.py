"""What can go wrong with the archive, named by what the caller does next."""


class StoreError(Exception):
    """Base of all: the archive did not do what it was asked. `key` names the object, where there is one."""

    def __init__(self, message: str, key: str = "") -> None:
        super().__init__(message, key)
        self.message = message
        self.key = key

    def __str__(self) -> str:
        return self.message


class StoreUnavailable(StoreError):
    """Network trouble, a time-out, 5xx or 503 SlowDown that outlasted the retries: try again later."""


class StoreRefused(StoreError):
    """Credentials, permissions or the bucket itself are wrong: nothing works until somebody acts."""


class NoObjectLock(StoreRefused):
    """Something was to be locked in a bucket that can lock nothing: the configuration and the bucket do not agree."""


class LockMissing(StoreRefused):
    """A version stands without the lock it was written with, and could not be given it: an incident."""


class VersionLocked(StoreError):
    """A version was to be deleted that a lock or a legal hold protects: it stays."""


class AlreadyExists(StoreError):
    """A create-only write met an object that is already there: compare, never overwrite."""


class ObjectMissing(StoreError):
    """The object that was to be read is not there."""


class IntegrityError(StoreError):
    """The archive holds or received other bytes than were sent: an incident, never a retry."""
