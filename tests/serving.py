"""An app on a real socket, as the commands that serve run it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from fastapi import FastAPI

from editr1.listening import listen, server


@contextmanager
def serving(app: FastAPI) -> Iterator[str]:
    """The app's address while the context is open."""
    listener, url = listen("127.0.0.1", 0)
    running = server(app)
    thread = threading.Thread(target=running.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        yield url
    finally:
        running.should_exit = True
        thread.join(60)
