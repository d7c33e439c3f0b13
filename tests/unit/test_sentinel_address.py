"""The address of Redis behind Sentinels: what is read from it, and what is refused."""

import pytest

from config.sentinel import is_sentinel, read_sentinels

SECRET = "hunter2"


def test_an_address_says_who_is_asked_and_who_logs_in() -> None:
    """Hosts and ports of all, name and database and login of the first; the Sentinels' own login stands apart."""
    told = read_sentinels(f"sentinel://u:{SECRET}@a/2?master_name=calls&sentinel_username=s;sentinel://b:1")
    assert told.hosts == (("a", 26379), ("b", 1))
    assert (told.master_name, told.db, told.username, told.password) == ("calls", 2, "u", SECRET)
    assert told.sentinel_login == {"username": "s"}
    assert SECRET not in repr(told)
    plain = read_sentinels("sentinel://a?master_name=calls")
    assert (plain.db, plain.username, plain.password, plain.sentinel_login) == (0, None, None, {})
    assert plain.urls() == ["sentinel://a:26379/0"]


@pytest.mark.parametrize(
    ("url", "says"),
    [
        (f"sentinel://:{SECRET}@a/x?master_name=n", "cannot be read"),
        (f"sentinel://:{SECRET}@a:x?master_name=n", "cannot be read"),
        (f"sentinel://:{SECRET}@a?master_name=n;redis://b", "begins with sentinel://"),
        (f"sentinel://:{SECRET}@?master_name=n", "names a host"),
        (f"sentinel://a?master_name=n;sentinel://:{SECRET}@b", "into the first address"),
        (f"sentinel://:{SECRET}@a;sentinel://b?master_name=n", "into the first address"),
        (f"sentinel://:{SECRET}@a", "lacks the name of the primary"),
        (f"sentinel://a?master_name=n&ssl_ca_certs={SECRET}", "it knows master_name, sentinel_password, sentinel_us"),
    ],
)
def test_another_address_is_refused_without_its_parts(url: str, says: str) -> None:
    """Each reason is a sentence that can be shown: nothing of the address is in it."""
    with pytest.raises(ValueError, match=says) as caught:
        read_sentinels(url)
    assert SECRET not in str(caught.value)


def test_other_addresses_are_of_another_kind() -> None:
    """The scheme decides, in whatever case it is written."""
    assert is_sentinel("SENTINEL://a")
    assert not is_sentinel("redis://a")
