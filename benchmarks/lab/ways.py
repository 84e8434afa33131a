"""Ways to a server that can be cut, slowed, or made to lose an answer: TCP relays in a thread of this process.

They stand in front of the object stores, one for each site and store, so that a fault hits one site's way only. What
passes is not changed: requests are signed for the relay's own address.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Coroutine
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Literal, Self

CHUNK = 1 << 16
Fate = Literal["lose the answer", "hold"]


@dataclass
class Way:
    """One relay. `address` is what a client connects to; the faults may be set from any thread."""

    host: str
    port: int
    address: str = ""
    cut: bool = False
    delay_s: float = 0.0
    bytes_per_s: float = 0.0  # 0: no bound
    _armed: tuple[bytes, Fate, threading.Event] | None = None
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)

    def arm(self, part: bytes, fate: Fate) -> threading.Event:
        """Give the next PUT whose path holds `part` this fate; the event is set when it has it."""
        told = threading.Event()
        self._armed = (part, fate, told)
        return told

    def disarm(self) -> None:
        """Let the next PUT pass."""
        self._armed = None

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Relay one connection until either side ends it."""
        if self.cut:
            writer.transport.abort()
            return
        try:
            answers, requests = await asyncio.open_connection(self.host, self.port)
        except OSError:
            writer.transport.abort()
            return
        lost = asyncio.Event()
        self._writers |= {writer, requests}
        pumps = [
            asyncio.ensure_future(self._requests(reader, requests, lost)),
            asyncio.ensure_future(self._answers(answers, writer, lost)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            for one in (writer, requests):
                one.transport.abort()
            self._writers -= {writer, requests}

    async def _requests(self, reader: asyncio.StreamReader, out: asyncio.StreamWriter, lost: asyncio.Event) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(CHUNK):
                fate = self._fate(data)
                if fate == "hold":
                    await reader.read()  # until the client goes
                    return
                if fate is not None:
                    lost.set()
                await self._pass(data, out)

    async def _answers(self, reader: asyncio.StreamReader, out: asyncio.StreamWriter, lost: asyncio.Event) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(CHUNK):
                if lost.is_set():
                    return
                await self._pass(data, out)

    async def _pass(self, data: bytes, out: asyncio.StreamWriter) -> None:
        if self.delay_s or self.bytes_per_s:
            await asyncio.sleep(self.delay_s + (len(data) / self.bytes_per_s if self.bytes_per_s else 0.0))
        out.write(data)
        await out.drain()

    def _fate(self, data: bytes) -> Fate | None:
        armed = self._armed
        if armed is None or not data.startswith(b"PUT ") or armed[0] not in data.split(b"\r\n", 1)[0]:
            return None
        self._armed = None
        armed[2].set()
        return armed[1]


class Ways:
    """The relays of a lab, in one thread."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        async def end() -> None:
            tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        self._done(end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def open(self, host: str, port: int) -> Way:
        """Return a new way to a server."""
        way = Way(host, port)
        server = self._done(asyncio.start_server(way.serve, "127.0.0.1", 0))
        way.address = "127.0.0.1:{1}".format(*server.sockets[0].getsockname())
        return way

    def cut(self, way: Way) -> None:
        """Let nothing pass: connections break off, new ones are refused."""
        way.cut = True

        def abort() -> None:
            for writer in way._writers:
                writer.transport.abort()

        self._loop.call_soon_threadsafe(abort)

    def _done(self, job: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(job, self._loop).result(timeout=30)


def through(url: str, old: str, way: Way) -> str:
    """Return a store's URL with its endpoint at `old` replaced by a way to it.

    Raises:
        ValueError: the URL has no such endpoint.
    """
    if old not in url:
        raise ValueError(f"{url} does not lead to {old}")
    return url.replace(old, f"http://{way.address}")
