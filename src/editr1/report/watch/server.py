"""`editr1 watch`: a local page that follows runs. For people on this machine.

The page asks for what is new; no path comes from the browser, which asks for pictures by the numbers of run and step.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from typing import Any

from fastapi import FastAPI
from fastapi.responses import HTMLResponse, JSONResponse, Response

from editr1.data.pictures import png
from editr1.errors import UserError
from editr1.evaluation.heldout.rows import open_image
from editr1.listening import Guard, listen, server
from editr1.report.environment import environment
from editr1.report.watch.following import Followed
from editr1.report.watch.view import TONES, fragment, names_of
from editr1.training.run_files import SAMPLES

POLICY = "default-src 'self' 'unsafe-inline'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'"
BODY_MAX = 1000  # bytes of a request's body, which has none

_log = logging.getLogger(__name__)


def watch(folders: Sequence[Path], *, host: str = "127.0.0.1", port: int = 8200) -> None:
    """Serve the page of these runs until Ctrl-C.

    Args:
        folders: Of runs, finished or not.
        host: Address to listen at.
        port: Port to listen at; 0 takes a free one.

    Raises:
        UserError: A folder holds no run, there are too many, or the address is taken.
    """
    if len(folders) > len(TONES):
        raise UserError(f"{len(folders)} runs: a chart shows {len(TONES)} at most; give fewer")
    app = make_app([Followed(folder) for folder in folders], host)
    listener, url = listen(host, port)
    _log.info("Watch at %s (Ctrl-C ends it)", url)
    server(app).run(sockets=[listener])


class Board:
    """The runs as the page has them.

    Attributes:
        version: Name of the state that `html` shows; another one after every change.
    """

    def __init__(self, runs: Sequence[Followed]) -> None:
        self.runs, self._lock = runs, Lock()
        self._start, self._changes = secrets.token_hex(4), 0
        self.html = fragment(runs)

    @property
    def version(self) -> str:
        return f"{self._start}-{self._changes}"

    def state(self, known: str) -> dict[str, Any]:
        """What is new for a page that shows the version `known`; seconds since the last row of each run."""
        with self._lock:
            changes = [run.look() for run in self.runs]
            if any(changes):
                self._changes += 1
                self.html = fragment(self.runs)
            new = {} if known == self.version else {"html": self.html}
            return {"version": self.version, "ages": [run.age for run in self.runs], **new}

    def picture(self, number: int, step: int) -> bytes | None:
        """The picture of the samples of a run's step as a PNG file; None if there is none that can be read."""
        if not 0 <= number < len(self.runs):
            return None
        try:
            return png(open_image(self.runs[number].folder / SAMPLES, f"step_{step:06d}.png"))
        except UserError as error:
            _log.warning("%s", error)
            return None


def make_app(runs: Sequence[Followed], host: str = "127.0.0.1") -> FastAPI:
    """The page over these runs."""
    app = FastAPI(openapi_url=None)
    app.add_middleware(Guard, host=host, body_max=BODY_MAX, refuse=_refuse)
    board = Board(runs)

    @app.get("/")
    def show() -> HTMLResponse:
        page = environment().get_template("watch.html.j2")
        html = page.render(html=board.html, version=board.version, names=names_of(runs))
        return HTMLResponse(html.encode(errors="replace"), headers={"Content-Security-Policy": POLICY})

    @app.get("/state")
    def state(version: str = "") -> Response:
        return JSONResponse(board.state(version))

    @app.get("/samples/{number}/{step}")
    def samples(number: int, step: int) -> Response:
        if (picture := board.picture(number, step)) is None:
            return _refuse(404, "there is no such picture")
        return Response(picture, media_type="image/png", headers={"Cache-Control": "private, max-age=3600"})

    return app


def _refuse(status: int, why: str) -> JSONResponse:
    return JSONResponse({"error": why}, status)
