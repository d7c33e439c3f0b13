"""The server behind the state: which ones will do, how they are addressed, and what each trouble says."""

import asyncio
import pickle
import re
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from ssl import SSLContext

import pytest
import redis
import uvloop

from storage.state import StateRefused, StateUnavailable, StateUnfit
from storage.state_redis import RedisState
from tests.contract.state_contract import everything
from tests.support.certificate import own_certificate
from tests.support.clock import FakeClock
from tests.support.valkey import Valkey, free_port

P = "callvault:acme:"
OpenState = Callable[..., RedisState]


@pytest.fixture
def state(raw: redis.Redis, open_state: OpenState) -> RedisState:
    """Return a state on an empty server."""
    return open_state()


# What errors say

SECRET = "hunter2"


@asynccontextmanager
async def answering(*replies: bytes, ssl: SSLContext | None = None) -> AsyncIterator[str]:
    """Serve whoever connects: one reply for each command, the last one again and again. Yields the URL."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        left = list(replies)
        while line := await reader.readline():
            if line.startswith(b"*"):
                writer.write(left.pop(0) if len(left) > 1 else left[0])
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=ssl)
    async with server:
        yield f"redis://user:{SECRET}@127.0.0.1:{server.sockets[0].getsockname()[1]}/0?client_name={SECRET}"


async def refusal(asked: Awaitable[object], kind: type[StateUnavailable]) -> str:
    """Return the message of the error that is raised: of this very kind, and with no secret anywhere in it."""
    with pytest.raises(StateUnavailable) as caught:
        await asked
    assert type(caught.value) is kind
    assert SECRET not in "".join(traceback.format_exception(caught.value))
    return str(caught.value)


@pytest.mark.parametrize(
    ("reply", "kind", "says"),
    [
        (b"-LOADING Valkey is loading the dataset in memory", StateUnavailable, "still loading its data"),
        (b"-OOM command not allowed when used memory > 'maxmemory'.", StateUnavailable, "out of memory: raise"),
        (
            b"-ERR Error running script (call to f_6b1b): @user_script:5: @user_script: 5: -OOM command not allowed",
            StateUnavailable,
            "out of memory: raise",
        ),
        (b"-READONLY You can't write against a read only replica.", StateUnavailable, "is a replica and cannot"),
        (b"-MASTERDOWN Link with MASTER is down", StateUnavailable, "lost its primary"),
        (b"-MISCONF Valkey is configured to save RDB snapshots, but", StateUnavailable, "cannot save to disk"),
        (b"-NOREPLICAS Not enough good replicas to write.", StateUnavailable, "too few replicas"),
        (b"-BUSY Valkey is busy running a script.", StateUnavailable, "busy with a script"),
        (b"-CLUSTERDOWN Hash slot not served", StateRefused, "belongs to a cluster"),
        (b"-MOVED 3999 127.0.0.1:6381", StateRefused, "belongs to a cluster"),
        (b"-CROSSSLOT Keys in request don't hash to the same slot", StateRefused, "belongs to a cluster"),
        (b"-NOPERM User bob has no permissions to run the 'ping' command", StateRefused, "to run the 'ping' command)"),
        (b"-WRONGPASS invalid username-password pair or user is disabled.", StateRefused, "user name or password"),
        (b"-NOAUTH Authentication required.", StateRefused, "user name or password"),
        (b"HTTP/1.1 400 Bad Request", StateRefused, "does not speak Redis's protocol"),
    ],
)
async def test_what_a_server_refuses_is_a_sentence(
    open_state: OpenState, reply: bytes, kind: type[StateUnavailable], says: str
) -> None:
    """Each trouble of a server names its address and what to do, and tells what passes from what stays."""
    ok = b"+OK\r\n"  # to the login, the client's name, and its library's name and version
    async with answering(ok, ok, ok, ok, reply + b"\r\n") as url:
        state = open_state(url, retry=None)
        message = await refusal(state.ping(), kind)
        await state.aclose()
    assert says in message
    assert re.match(r"the state server 127\.0\.0\.1:\d+ ", message)


async def test_a_connection_cut_in_the_middle_is_unavailable(open_state: OpenState) -> None:
    """Half an answer and the end of the connection are no answer."""
    listener = await asyncio.start_server(_half_an_answer, "127.0.0.1", 0)
    async with listener:
        port = listener.sockets[0].getsockname()[1]
        assert "does not answer" in await refusal(open_state(f"redis://127.0.0.1:{port}").ping(), StateUnavailable)


async def _half_an_answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readline()
    writer.write(b"$100\r\nhalf")
    writer.close()


async def test_no_server_is_unavailable(open_state: OpenState, clock: FakeClock) -> None:
    """Where nobody listens, every method says so, with host and port and without the password."""
    port = free_port()
    state = open_state(f"redis://user:{SECRET}@127.0.0.1:{port}/0", retry=None)
    for asked in (state.ping(), state.acquire("hq", 1), everything(state, clock), state.check_server()):
        message = await refusal(asked, StateUnavailable)
        assert message.startswith(f"the state server 127.0.0.1:{port} does not answer (")
        assert message.endswith("): see that it runs and that [broker] url, or state_url, is right")


async def test_a_cancellation_is_never_forgotten(state: RedisState, valkey: Valkey) -> None:
    """It may come at any moment of a command: work at its deadline, or on a worker that stops, ends there and then."""

    def cancel(task: asyncio.Task[None], steps: int) -> None:
        if steps:
            asyncio.get_running_loop().call_soon(cancel, task, steps - 1)
        else:
            task.cancel()

    for steps in range(12):
        await state.ping()  # a connection is there
        valkey.freeze()  # and no answer comes before the cancellation
        command = asyncio.create_task(state.ping())
        cancel(command, steps)
        await asyncio.wait([command], timeout=0.2)
        valkey.thaw()
        (outcome,) = await asyncio.gather(command, return_exceptions=True)
        assert isinstance(outcome, asyncio.CancelledError), f"cancelled after {steps} steps of the loop"


@pytest.mark.parametrize("times", [1, 1000])
def test_a_connection_that_uvloop_closed(
    valkey: Valkey, clock: FakeClock, times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who writes to it is told so by a RuntimeError: another is opened, and when each ends so, the server is away."""
    written = asyncio.StreamWriter.writelines

    async def main() -> None:
        reader, closed = await asyncio.open_connection("127.0.0.1", valkey.port)
        closed.transport.abort()
        await reader.read()
        left = 0

        def ends(self: asyncio.StreamWriter, data: Iterable[bytes]) -> None:
            nonlocal left
            left -= 1
            written(self if left < 0 else closed, data)

        monkeypatch.setattr(asyncio.StreamWriter, "writelines", ends)
        state = RedisState(valkey.url, "acme", clock, grace=0)
        await state.paused("hq")
        left = times
        if times == 1:
            assert await state.paused("hq") is None
        else:
            assert "(the connection is closed)" in await refusal(state.paused("hq"), StateUnavailable)
        await state.aclose()

    uvloop.run(main())


async def test_a_bug_is_no_closed_connection(state: RedisState, monkeypatch: pytest.MonkeyPatch) -> None:
    """Any other RuntimeError stays what it is."""

    def fails(*_: object) -> None:
        raise RuntimeError("other")

    monkeypatch.setattr(asyncio.StreamWriter, "writelines", fails)
    with pytest.raises(RuntimeError, match="other"):
        await state.paused("hq")


async def test_a_server_that_hangs_is_unavailable(open_state: OpenState, valkey: Valkey, state: RedisState) -> None:
    """A server that keeps its connections open and says nothing is given up after the time set."""
    impatient = open_state(socket_timeout=0.05, retry=None)
    await impatient.ping()
    valkey.freeze()
    try:
        assert "does not answer" in await refusal(impatient.acquire("hq", 1), StateUnavailable)
    finally:
        valkey.thaw()
    await impatient.ping()


async def test_a_full_server_is_unavailable(state: RedisState, raw: redis.Redis, clock: FakeClock) -> None:
    """A real server out of memory still answers what needs none, and says so for the rest."""
    await state.note("poll", {"listed": "1"})
    raw.config_set("maxmemory", 1)
    try:
        assert await state.noted("poll") == {"listed": "1"}
        for asked in (state.reserve("hq", 1), state.stash("batch", "body", 60), state.lease("poll:hq", 30)):
            assert "is out of memory" in await refusal(asked, StateUnavailable)
    finally:
        raw.config_set("maxmemory", 0)
    assert await state.acquire("hq", 1)


async def test_a_replica_is_unavailable(state: RedisState, raw: redis.Redis) -> None:
    """A server that became a replica refuses writes: a failover under way, or the wrong address."""
    raw.replicaof("127.0.0.1", free_port())
    try:
        assert "is a replica" in await refusal(state.acquire("hq", 1), StateUnavailable)
        assert "is a replica" in await refusal(state.stash("batch", "body", 60), StateUnavailable)
        assert "is a replica and cannot be written" in await refusal(state.check_server(), StateRefused)
    finally:
        raw.replicaof("NO", "ONE")
    assert await state.acquire("hq", 1)


async def test_a_user_with_few_rights_is_enough(
    open_state: OpenState, valkey: Valkey, raw: redis.Redis, clock: FakeClock
) -> None:
    """A user confined to the namespace can do everything; the check warns that it cannot see the server's settings."""
    raw.acl_setuser(
        "limited",
        enabled=True,
        passwords=[f"+{SECRET}"],
        keys=[f"{P}*"],
        categories=["+@all", "-@admin", "-@dangerous"],
    )
    try:
        url = f"redis://limited:{SECRET}@127.0.0.1:{valkey.port}/0"
        state = open_state(url)
        await everything(state, clock)
        (warning,) = await state.check_server()
        assert "has no permissions to run the 'info' command" in warning
        assert warning.endswith("whether it throws keys away or is a cluster could not be checked")
        message = await refusal(open_state(url, namespace="other").acquire("hq", 1), StateRefused)
        assert "does not let this user do that" in message
        wrong = open_state(f"redis://limited:not-{SECRET}@127.0.0.1:{valkey.port}/0")
        assert "refuses the user name or password" in await refusal(wrong.check_server(), StateRefused)
    finally:
        raw.acl_deluser("limited")


async def test_a_mistake_in_a_command_is_not_hidden(state: RedisState) -> None:
    """An error that no server's condition explains is a bug, and comes out as it is."""
    with pytest.raises(redis.ResponseError, match="unknown command"):
        await state._server.call("NO-SUCH-COMMAND")


@pytest.mark.parametrize("kind", [StateUnavailable, StateRefused, StateUnfit])
def test_errors_survive_pickling(kind: type[StateUnavailable]) -> None:
    """An error that crosses processes keeps its type and its message."""
    copy = pickle.loads(pickle.dumps(kind("the state server does not answer")))
    assert type(copy) is kind
    assert str(copy) == "the state server does not answer"


# Which servers


async def test_a_server_that_keeps_everything_is_fine(state: RedisState) -> None:
    """A single primary with the policy noeviction gives no warning."""
    assert await state.check_server() == []


async def test_a_server_that_throws_keys_away_is_refused(state: RedisState, raw: redis.Redis) -> None:
    """With another policy than noeviction and a limit queues could vanish; without a limit that is a remark."""
    raw.config_set("maxmemory-policy", "allkeys-lru")
    try:
        (remark,) = await state.check_server()
        raw.config_set("maxmemory", "100mb")
        message = await refusal(state.check_server(), StateUnfit)
    finally:
        raw.config_set("maxmemory", 0)
        raw.config_set("maxmemory-policy", "noeviction")
    assert "has no maxmemory, else its maxmemory-policy allkeys-lru would throw" in remark
    assert "(maxmemory-policy is allkeys-lru): set `maxmemory-policy noeviction`" in message


async def test_a_server_that_does_not_tell_its_policy_is_warned_of(open_state: OpenState) -> None:
    """Some hosted servers hide the setting: that is a warning, not a refusal."""
    ok, info = b"+OK\r\n", b"role:master\r\ncluster_enabled:0\r\n"
    async with answering(ok, ok, ok, ok, b"$%d\r\n%s\r\n" % (len(info), info)) as url:
        state = open_state(url)
        (warning,) = await state.check_server()
        await state.aclose()
    assert warning.endswith("does not tell its maxmemory-policy")


async def test_a_cluster_is_refused(open_state: OpenState, tmp_path: Path) -> None:
    """A server in cluster mode is refused by the check, and by the first use."""
    with Valkey(tmp_path / "valkey", cluster_enabled="yes") as server:
        state = open_state(server.url)
        assert "is a cluster, which is not supported" in await refusal(state.check_server(), StateUnfit)
        assert "belongs to a cluster" in await refusal(state.lease("poll:hq", 30), StateRefused)


@pytest.mark.parametrize("url", ["unix://{path}?db=3", "redis+socket://{path}?virtual_host=3"])
async def test_a_unix_socket(open_state: OpenState, tmp_path: Path, url: str) -> None:
    """The state speaks over a Unix socket, written as redis-py or as Celery writes it; the path is its address."""
    path = tmp_path / "s"
    with Valkey(tmp_path / "valkey", unixsocket=str(path)) as server:
        state = open_state(url.format(path=path))
        await state.stash("batch", "body", 60)
        with server.client(db=3) as raw:
            assert raw.get(f"{P}stash:batch") == "body"
    message = await refusal(state.ping(), StateUnavailable)
    assert message.startswith(f"the state server {path} does not answer")


async def test_through_sentinel(open_state: OpenState, valkey: Valkey, raw: redis.Redis, tmp_path: Path) -> None:
    """The Sentinels are asked where the primary is, one that is down left out; the database of the URL is used."""
    with Valkey(tmp_path / "sentinel", sentinel_of=valkey) as sentinel:
        down = free_port()
        url = f"sentinel://127.0.0.1:{down}/3?master_name={{}};sentinel://127.0.0.1:{sentinel.port}"
        state = open_state(url.format("primary"))
        assert await state.acquire("hq", 1)
        with valkey.client(db=3) as third:
            assert sorted(third.scan_iter()) == [f"{P}permits-since", f"{P}permits:hq"]
        unknown = open_state(url.format("another"), retry=None)
        message = await refusal(unknown.ping(), StateUnavailable)
    assert f"another behind the Sentinels 127.0.0.1:{down}, 127.0.0.1:{sentinel.port} does not answer" in message


async def test_the_new_primary_is_found_at_once(open_state: OpenState, tmp_path: Path) -> None:
    """When the primary is gone and the Sentinels name another, the very next command reaches it."""
    with ExitStack() as stack:
        first, second = (stack.enter_context(Valkey(tmp_path / name)) for name in ("first", "second"))
        sentinel = stack.enter_context(Valkey(tmp_path / "sentinel", sentinel_of=first))
        state = open_state(f"sentinel://127.0.0.1:{sentinel.port}/0?master_name=primary")
        await state.ping()
        with sentinel.client() as told:
            told.sentinel_remove("primary")
            told.sentinel_monitor("primary", "127.0.0.1", second.port, 1)
        first.kill()
        assert await state.acquire("hq", 1)
        with second.client() as raw:
            assert sorted(raw.scan_iter()) == [f"{P}permits-since", f"{P}permits:hq"]


async def test_the_login_of_a_sentinel_url_is_the_servers(
    open_state: OpenState, valkey: Valkey, raw: redis.Redis, tmp_path: Path
) -> None:
    """User name and password in the first address are for the primary, percent-encoded characters included."""
    raw.acl_setuser("p@l", enabled=True, passwords=["+a/b"], keys=["*"], categories=["+@all"])
    try:
        with Valkey(tmp_path / "sentinel", sentinel_of=valkey) as sentinel:
            state = open_state(f"sentinel://p%40l:a%2Fb@127.0.0.1:{sentinel.port}/0?master_name=primary")
            assert await state.acquire("hq", 1)
    finally:
        raw.acl_deluser("p@l")


@pytest.mark.parametrize(
    ("url", "says"),
    [
        (f"amqp://user:{SECRET}@127.0.0.1//", "a broker of another kind needs [broker] state_url"),
        (f"redis://user:{SECRET}/x@127.0.0.1:6379/0", "none of a Redis or Valkey server"),
        (f"redis://:{SECRET}@127.0.0.1:6379/0?socket_timeout=soon", "with options that redis-py knows"),
        (f"redis://:{SECRET}@127.0.0.1:6379/0?{SECRET}=1", "with options that redis-py knows"),
        (f"rediss://:{SECRET}@127.0.0.1:6379/0?ssl_cert_reqs=perhaps", "with options that redis-py knows"),
        (f"redis://:{SECRET}@a:6379;redis://:{SECRET}@b:6379", "several are for sentinel:// alone"),
        (SECRET, "the state needs one server's URL"),
        (f"sentinel://:{SECRET}@a:26379", "it lacks the name of the primary, ?master_name=NAME; write"),
    ],
)
def test_a_wrong_url_is_a_sentence(clock: FakeClock, url: str, says: str) -> None:
    """A URL that names no server for state is refused at once, with what was expected and none of its parts."""
    with pytest.raises(StateRefused) as caught:
        RedisState(url, "acme", clock)
    assert says in str(caught.value)
    assert SECRET not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("url", [f"sentinel://:{SECRET}/x@a:26379", "sentinel://a:26379/zero", "sentinel://a:b;c"])
def test_a_wrong_sentinel_url_is_a_sentence(clock: FakeClock, url: str) -> None:
    """Ports and database numbers of Sentinel addresses are numbers."""
    with pytest.raises(StateRefused, match="no address of Sentinels: a host, a port or the number") as caught:
        RedisState(url, "acme", clock)
    assert SECRET not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("option", ["", "?ssl_cert_reqs=required", "?ssl_cert_reqs=CERT_REQUIRED"])
async def test_tls_is_verified(open_state: OpenState, tmp_path: Path, option: str) -> None:
    """A certificate that nobody vouches for is refused, whether redis-py's or Celery's word for it is in the URL."""
    _, context = own_certificate(tmp_path)
    async with answering(b"+OK\r\n", ssl=context) as url:
        address = url.split("@")[1].split("/")[0]
        message = await refusal(open_state(f"rediss://{address}/0{option}", retry=None).ping(), StateRefused)
    assert "shows a certificate that is not trusted" in message
    assert "ssl_ca_certs=" in message


async def test_tls_with_an_authority_of_ones_own(open_state: OpenState, tmp_path: Path) -> None:
    """With the authority's file in the URL, the state speaks TLS."""
    authority, context = own_certificate(tmp_path)
    async with answering(b"+OK\r\n", ssl=context) as url:
        address = url.split("@")[1].split("/")[0]
        state = open_state(f"rediss://{address}/0?ssl_ca_certs={authority}")
        await state.ping()
        await state.aclose()
