"""A TCP connection between two parts that goes wrong on command: slow, held back, swallowed, cut.

It runs on its own thread and event loop, so that tests, workers in processes of their own and Celery can all be
put behind it. What it does is set by `mode`, at any time, for the connections that are open as for new ones:

pass      every byte goes through at once.
slow      every piece comes `delay` seconds late.
hold      nothing goes through, nothing is closed, new connections are taken; back in `pass`, all that was held back
          arrives after all, late, as TCP itself would have it after an outage of the network.
swallow   as `hold`, but what was sent is gone: a connection that lost something never speaks again and is not closed
          by the proxy, as behind a firewall that forgot it. New ones made in `pass` are well.
cut       all connections are reset, and so is every new one.
"""

import asyncio
import contextlib
import socket
import struct
import threading
from types import TracebackType
from typing import Literal, Self

Mode = Literal["pass", "slow", "hold", "swallow", "cut"]

_PIECE = 65536
_PATIENCE = 20.0


class TcpProxy:
    """Takes connections at `host`:`port` and makes one to the target for each. A context manager, or `start`, `stop`.

    `port` is chosen at the first start unless given; a target that is not there yet, or no more, resets the client.
    """

    def __init__(
        self,
        target_port: int,
        *,
        target_host: str = "127.0.0.1",
        host: str = "127.0.0.1",
        port: int = 0,
        delay: float = 0.05,
    ) -> None:
        self.host = host
        self.port = port
        self.delay = delay
        self._target = (target_host, target_port)
        self._mode: Mode = "pass"

    @property
    def mode(self) -> Mode:
        """What is done to the bytes; set it from any thread, it holds once the assignment returns."""
        return self._mode

    @mode.setter
    def mode(self, mode: Mode) -> None:
        asyncio.run_coroutine_threadsafe(self._turn(mode), self._loop).result(_PATIENCE)

    @property
    def connections(self) -> int:
        """How many connections of clients are open."""
        return len(self._links)

    def start(self) -> Self:
        ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main(ready)), daemon=True)
        self._thread.start()
        assert ready.wait(_PATIENCE), "the proxy does not start"
        return self

    def stop(self) -> None:
        """Cut everything and close the port; may be called twice."""
        if not self._loop.is_closed():
            with contextlib.suppress(RuntimeError):  # closed since
                self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(_PATIENCE)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    async def _main(self, ready: threading.Event) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        self._turned = asyncio.Condition()
        self._links: set[_Link] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        server = await asyncio.start_server(self._take, self.host, self.port)
        self.port = server.sockets[0].getsockname()[1]
        ready.set()
        await self._stopping.wait()
        server.close()
        for link in self._links:
            link.reset()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _turn(self, mode: Mode) -> None:
        async with self._turned:
            self._mode = mode
            self._turned.notify_all()
        if mode == "cut":
            for link in self._links:
                link.reset()

    def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))  # the server's own would complain of being cancelled
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = _Link([writer])
        self._links.add(link)
        try:
            if self._mode != "cut":
                there, back = await asyncio.open_connection(*self._target)
                link.writers.append(back)
                if self._mode != "cut":  # it may have been turned meanwhile
                    await asyncio.gather(self._pump(link, reader, back), self._pump(link, there, writer))
        except OSError:  # one side is gone, or was never there: so is the other
            pass
        finally:
            self._links.discard(link)
            link.reset()

    async def _pump(self, link: "_Link", reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while piece := await reader.read(_PIECE):
            if self._mode == "slow":
                await asyncio.sleep(self.delay)
            if self._mode == "swallow":
                link.lost = True
            if link.lost:
                continue
            await self._passing()
            writer.write(piece)
            await writer.drain()
        await self._passing()  # an end is a packet like any other
        if not link.lost:
            writer.close()
        elif writer is not link.writers[0]:  # the client has given up at last
            link.reset()

    async def _passing(self) -> None:
        async with self._turned:
            await self._turned.wait_for(lambda: self._mode not in ("hold", "swallow"))


class _Link:
    """One client's connection and the one made for it."""

    def __init__(self, writers: list[asyncio.StreamWriter]) -> None:
        self.writers = writers
        self.lost = False

    def reset(self) -> None:
        """End both at once, with a reset for whoever still speaks."""
        for writer in self.writers:
            found = writer.get_extra_info("socket")
            if found is not None and not writer.transport.is_closing():
                found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
