"""`editr1 judge arena`: the page, its pictures, and the votes. For one person on this machine.

Only requests to this very address are answered (no other site can reach it by its name), only the page itself can vote,
and no path comes from the browser: it asks for pictures by number.
"""

from __future__ import annotations

import logging
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response
from pydantic import BaseModel, ConfigDict

from editr1.data.pictures import png
from editr1.errors import UserError
from editr1.evaluation.agreement.pairs import Preference
from editr1.evaluation.arena.votes import Duel, Votes, read_duels, runs_id
from editr1.evaluation.heldout.rows import open_image
from editr1.listening import Guard, listen, server

POLICY = "default-src 'self' 'unsafe-inline'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'"
BODY_MAX = 1000  # bytes of a vote
STRANGER = "votes are taken from the page itself only"

_log = logging.getLogger(__name__)


class Vote(BaseModel):
    """A vote as the page sends it: the number of the pair, and the choice."""

    model_config = ConfigDict(extra="forbid", strict=True)

    index: int
    choice: Literal["left", "right", "tie"]


def arena(run_a: Path, run_b: Path, out: Path, *, host: str = "127.0.0.1", port: int = 8100, seed: int = 0) -> None:
    """Serve the page until Ctrl-C.

    Args:
        run_a: a run that was evaluated, or the folder of an evaluation.
        run_b: another one, of the same items.
        out: file of the votes; pairs with a vote are not shown again.
        host: address to listen at.
        port: port to listen at.
        seed: seed of the order of the pairs and of the sides.
    """
    duels = read_duels(run_a, run_b, seed)
    app = make_app(duels, Votes(out, runs_id(run_a, run_b)), host)
    listener, url = listen(host, port)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    _log.info("Vote at %s (Ctrl-C ends it); votes go to %s", url, out)
    server(app).run(sockets=[listener])


class Arena:
    """The pairs and the votes on them."""

    def __init__(self, duels: list[Duel], votes: Votes) -> None:
        self.duels, self.votes = duels, votes

    def state(self) -> dict[str, Any]:
        """What the page shows: the next pair, the progress, and the counts of votes."""
        voted = self.votes.keys
        left = [index for index, duel in enumerate(self.duels) if duel.key not in voted]
        return {
            "done": len(self.duels) - len(left),
            "of": len(self.duels),
            "pair": {"index": left[0], "instruction": self.duels[left[0]].instruction} if left else None,
            "following": left[1] if len(left) > 1 else None,
            "undo": bool(self.votes.lines),
            "counts": dict(self.votes.counts),
            "out": str(self.votes.path),
        }

    def picture(self, index: int, which: Literal["source", "left", "right"]) -> bytes | None:
        """A picture as a PNG file, whatever its own file is; None if there is no such pair or picture."""
        if not 0 <= index < len(self.duels):
            return None
        duel = self.duels[index]
        left, right = (duel.b, duel.a) if duel.swapped else (duel.a, duel.b)
        path = {"source": duel.source, "left": left, "right": right}[which]
        try:
            return png(open_image(path.parent, path.name))
        except UserError as error:
            _log.warning("%s", error)
            return None

    def vote(self, ballot: Vote) -> JSONResponse:
        """Write a vote on the pair that is shown."""
        pair = self.state()["pair"]
        if pair is None or ballot.index != pair["index"]:
            return _refuse(409, "another pair is shown by now")
        duel = self.duels[ballot.index]
        preference: Preference = "b" if (ballot.choice == "left") == duel.swapped else "a"
        try:
            self.votes.add(duel, "tie" if ballot.choice == "tie" else preference)
        except (UserError, OSError) as error:
            return _refuse(507, f"not counted: {error}")
        return JSONResponse(self.state())

    def undo(self) -> JSONResponse:
        try:
            self.votes.undo()
        except UserError as error:
            return _refuse(507, f"not taken back: {error}")
        return JSONResponse(self.state())


def make_app(duels: list[Duel], votes: Votes, host: str = "127.0.0.1") -> FastAPI:
    """The page over these pairs."""
    app = FastAPI(openapi_url=None)
    app.add_middleware(Guard, host=host, body_max=BODY_MAX, refuse=_refuse)
    page = resources.files("editr1.evaluation.arena").joinpath("page.html").read_text(encoding="utf-8")
    rounds = Arena(duels, votes)

    @app.get("/")
    def show() -> HTMLResponse:
        return HTMLResponse(page, headers={"Content-Security-Policy": POLICY})

    @app.get("/state")
    def state() -> dict[str, Any]:
        return rounds.state()

    @app.get("/image/{index}/{which}")
    def image(index: int, which: Literal["source", "left", "right"]) -> Response:
        picture = rounds.picture(index, which)
        return Response(picture, media_type="image/png") if picture else _refuse(404, "there is no such picture")

    # Coroutines run one after the other, so two votes cannot write at the same time.
    @app.post("/vote")
    async def vote(request: Request, ballot: Vote) -> Response:
        return rounds.vote(ballot) if _is_own(request) else _refuse(403, STRANGER)

    @app.post("/undo")
    async def undo(request: Request) -> Response:
        return rounds.undo() if _is_own(request) else _refuse(403, STRANGER)

    return app


def _is_own(request: Request) -> bool:
    """Whether our page sent it: another site's page has another origin, and cannot send JSON without permission."""
    own = f"http://{request.headers.get('host', '')}"
    return request.headers.get("origin") == own and request.headers.get("content-type") == "application/json"


def _refuse(status: int, why: str) -> JSONResponse:
    return JSONResponse({"error": why}, status)
