"""The worker process: `python -m polyroute.backends.local.worker FD`, where FD is its end of a socket pair."""

from __future__ import annotations

import os
import queue
import signal
import socket
import sys
import threading
from typing import TYPE_CHECKING

from polyroute.backends.local.messages import Load, LoadEmbedder, Stop
from polyroute.backends.local.worker.link import Link

if TYPE_CHECKING:
    from polyroute.backends.local.worker.conversation import Inbox


def main() -> None:
    """Serves the router at the other end of the socket, and ends with it."""
    for number in (signal.SIGINT, signal.SIGTERM):  # they are for the router, which lets its calls finish first
        signal.signal(number, signal.SIG_IGN)
    threading.excepthook = _end_with
    link = Link(socket.socket(fileno=int(sys.argv[1])))
    messages = link.receive()
    order = next(messages, None)
    if not isinstance(order, (Load, LoadEmbedder)):
        return
    inbox: Inbox = queue.SimpleQueue()

    def receive() -> None:
        for message in messages:
            if isinstance(message, Stop):
                break
            inbox.put(message)
        os._exit(0)  # even out of a load or a step: there is nobody left to finish it for

    threading.Thread(target=receive, name="router", daemon=True).start()
    from polyroute.backends.local.worker.lean import (
        import_transformers,
    )  # torch: seconds, in which the router may leave

    import_transformers()
    if isinstance(order, LoadEmbedder):
        from polyroute.backends.local.worker import embedding

        embedding.serve(order, link, inbox)
    else:
        from polyroute.backends.local.worker import serving

        serving.serve(order, link, inbox)


def _end_with(failure: threading.ExceptHookArgs) -> None:
    """A thread that dies takes the process with it: the router starts a new one, and knows that it must."""
    sys.excepthook(failure.exc_type, failure.exc_value or SystemExit(1), failure.exc_traceback)
    os._exit(1)


if __name__ == "__main__":
    main()
