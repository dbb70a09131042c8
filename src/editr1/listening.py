"""A local server: its socket, who may ask it, how much and for how long.

Requests must name this machine (a name that a stranger's site lets point here is refused: DNS rebinding), and come from
no page of another site. Bodies are limited in size and time, and so is the wait for the head of a request.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import urlsplit

import h11
import uvicorn
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from editr1.errors import UserError

PATIENCE = 30.0  # seconds for the head of a request, and as many for its body
HEAD_MAX = 2**16  # bytes of the head of a request
CONNECTIONS = 900  # at a time: a process may usually have 1,024 files
LOCAL = ("127.0.0.1", "::1", "localhost")
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
}
"""Of every answer that does not set them itself, those of the framework too."""


def listen(host: str, port: int) -> tuple[socket.socket, str]:
    """A listening socket and its URL; port 0 takes a free one.

    Raises:
        UserError: The address is taken, or not of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(2048)
    except (OSError, OverflowError, UnicodeError) as error:
        listener.close()
        raise UserError(f"cannot listen at {host}:{port} ({error}): choose another --host or --port") from error
    return listener, f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}"


def server(app: ASGIApp) -> uvicorn.Server:
    """A server of an application that ends connections which are slow to ask."""
    config = uvicorn.Config(app, http=_Protocol, ws="none", log_level="warning", access_log=False)
    return uvicorn.Server(config)


class Guard:
    """Checks requests before they reach an application.

    Args:
        app: The application.
        host: The address that the server listens at.
        body_max: Bytes of a request's body, at most.
        refuse: Makes an answer of a status and words.
        names: Further names that requests may give to this server.
    """

    def __init__(
        self,
        app: ASGIApp,
        host: str,
        body_max: int,
        refuse: Callable[[int, str], Response],
        names: Sequence[str] = (),
    ) -> None:
        self.app, self.body_max, self.refuse = app, body_max, refuse
        more = () if host in LOCAL else (socket.gethostname(), socket.getfqdn())
        self.names = {name.lower() for name in ("localhost", host, *more, *names)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve or refuse a request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if (problem := self._problem(Headers(scope=scope))) is not None:
            await self.refuse(*problem)(scope, receive, send)
        else:
            await self.app(scope, _limited(receive, self.body_max), send)

    def _problem(self, headers: Headers) -> tuple[int, str] | None:
        """Status and words of a refusal."""
        host, origin = headers.get("host", ""), headers.get("origin")
        if not self._is_own(host):
            names = ", ".join(sorted(self.names))
            return 400, f"this server has another name: call it by its address, as {names}, or as --allow-host says"
        if origin is not None and origin != f"http://{host}":
            return 403, "pages of other sites may not ask this server"
        if (size := headers.get("content-length", "0")).isdecimal() and int(size[:20]) > self.body_max:
            return 413, _too_long(self.body_max)
        return None

    def _is_own(self, host: str) -> bool:
        """Whether a Host header names an address, or this machine."""
        try:
            name = urlsplit(f"//{host}").hostname or ""
            return name in self.names or bool(ipaddress.ip_address(name))
        except ValueError:
            return False


def _too_long(most: int) -> str:
    return f"a request may have {most} bytes"


def _limited(receive: Receive, body_max: int) -> Receive:
    """Messages of a request; an HTTPException if its body is too long or too slow."""
    left, ends = body_max, asyncio.get_running_loop().time() + PATIENCE
    whole = False

    async def receive_limited() -> Message:
        nonlocal left, whole
        if whole:  # what comes now is the end of the connection
            return await receive()
        try:
            message = await asyncio.wait_for(receive(), ends - asyncio.get_running_loop().time())
        except asyncio.TimeoutError:
            raise HTTPException(408, f"the request did not come within {PATIENCE:g} s") from None
        left -= len(message.get("body", b""))
        if left < 0:
            raise HTTPException(413, _too_long(body_max))
        whole = not message.get("more_body", False)
        return message

    return receive_limited


class _Connection(h11.Connection):
    """Adds `HEADERS` to whatever is answered."""

    def send(self, event: Any) -> Any:
        if isinstance(event, h11.Response):
            present = {name for name, _ in event.headers}
            own = [(name, value) for name, value in HEADERS.items() if name.lower().encode() not in present]
            headers = [*event.headers, *own]
            event = h11.Response(status_code=event.status_code, headers=headers, reason=event.reason)
        return super().send(event)


class _Protocol(H11Protocol):
    """Ends a connection if no whole head of a request comes in time, and refuses one too many."""

    timer: asyncio.TimerHandle | None = None

    def __init__(self, config: uvicorn.Config, *others: Any, **named: Any) -> None:
        super().__init__(config, *others, **named)
        self.conn = _Connection(h11.SERVER, HEAD_MAX)

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        if len(self.connections) > CONNECTIONS:
            transport.abort()
        else:
            self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._stop()

    def send_400_response(self, msg: str) -> None:
        if self.cycle is not None:  # nonsense in or behind a request that is being answered
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        try:
            super().send_400_response(msg)
        except h11.LocalProtocolError:  # the answer has begun
            self.transport.abort()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._wait()

    def _wait(self) -> None:
        self._stop()
        self.timer = self.loop.call_later(PATIENCE, self._give_up)

    def _stop(self) -> None:
        if self.timer is not None:
            self.timer.cancel()

    def _give_up(self) -> None:
        if self.cycle is None or self.cycle.response_complete:
            self.transport.abort()
