"""The worker's end of the socket to the router: blocking, and for several threads."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator

from polyroute.backends.local.messages import LENGTH_BYTES, FromWorker, ToWorker, encode_frame, to_worker_decoder


class Link:
    """Sends and receives whole messages. Without its router a worker has nothing to do: it ends at once."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._frames = end.makefile("rb")
        self._lock = threading.Lock()

    def send(self, message: FromWorker) -> None:
        """Sends a message, waiting while the router is behind."""
        frame = encode_frame(message)
        try:
            with self._lock:
                self._end.sendall(frame)
        except OSError:
            os._exit(0)

    def receive(self) -> Iterator[ToWorker]:
        """The router's messages, as they come, until it closes its end or is gone."""
        while True:
            length = self._frames.read(LENGTH_BYTES)
            if len(length) < LENGTH_BYTES:
                return
            size = int.from_bytes(length, "big")
            body = self._frames.read(size)
            if len(body) < size:
                return
            yield to_worker_decoder.decode(body)
