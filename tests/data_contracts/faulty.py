"""A TCP proxy before a real store: it loses answers, cuts them short, turns bits over, or is not there."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import urlsplit


@dataclass
class Proxy:
    """Stands on a port of its own before `endpoint`; each request has a connection of its own to the store.

    The functions are asked about the head of each request and may change over time: `lose` drops the answer after
    the store has given it, `cut` passes on only so many bytes of it, `flip_up` and `flip_down` turn over one bit of the
    body on the way to the store, or back.
    """

    endpoint: str
    lose: Callable[[str], bool] = lambda _: False
    cut: Callable[[str], int | None] = lambda _: None
    flip_up: Callable[[str], bool] = lambda _: False
    flip_down: Callable[[str], bool] = lambda _: False
    requests: list[str] = field(default_factory=list)
    bytes_down: int = 0
    port: int = 0
    _listener: socket.socket | None = None

    def __enter__(self) -> Self:
        self.up()
        return self

    def __exit__(self, *_: object) -> None:
        self.down()

    def url(self, store: str) -> str:
        """The URL of a store, by way of this proxy."""
        return store.replace(self.endpoint, f"http://127.0.0.1:{self.port}")

    def up(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", self.port), backlog=64)
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._serve, args=(self._listener,), daemon=True).start()

    def down(self) -> None:
        """Refuse connections, as a machine does on which nothing listens."""
        if self._listener is not None:
            # Closing alone does not wake the thread that waits in accept.
            self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._listener = None

    def _serve(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._quietly, args=(client,), daemon=True).start()

    def _quietly(self, client: socket.socket) -> None:
        # One of the two went away in the middle: a client that gave up, a server that was stopped.
        with contextlib.suppress(OSError):
            self._one(client)

    def _one(self, client: socket.socket) -> None:
        where = urlsplit(self.endpoint)
        with client, socket.create_connection((where.hostname, where.port), timeout=60) as store:
            received = b""
            while b"\r\n\r\n" not in received:
                more = client.recv(65536)
                if not more:
                    return
                received += more
            head, _, body = received.partition(b"\r\n\r\n")
            length = re.search(rb"(?im)^content-length: (\d+)", head)
            pieces, size = [body], len(body)
            while length is not None and size < int(length[1]):
                piece = client.recv(1 << 20)
                if not piece:
                    return
                pieces.append(piece)
                size += len(piece)
            body = b"".join(pieces)
            asked = head.decode()
            self.requests.append(asked.partition("\r\n")[0])
            if body and self.flip_up(asked):
                body = body[:-1] + bytes([body[-1] ^ 1])
            store.sendall(head + b"\r\nConnection: close\r\n\r\n" + body)
            answer = self._answer(store)
            limit = self.cut(asked)
            if self.lose(asked):
                return
            if self.flip_down(asked):
                answer = answer[:-1] + bytes([answer[-1] ^ 1])
            if limit is not None:
                answer = answer[:limit]
            client.sendall(answer)
            self.bytes_down += len(answer)

    def _answer(self, store: socket.socket) -> bytes:
        pieces = []
        while piece := store.recv(1 << 20):
            pieces.append(piece)
        return b"".join(pieces)
