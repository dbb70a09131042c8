"""A chat server on a real socket that writes instructions as somebody who knows the toy scenes, and sees the pictures.

It finds the scene of a picture by looking, and reads task and object in the question. What it writes is in the words of
the toy world, so that a test can tell whether it was understood.
"""

from __future__ import annotations

import base64
import io
import json
import math
import re
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

import numpy as np
from PIL import Image as Images
from PIL import ImageDraw
from PIL.Image import Image

from editr1.toy.scene import SIZE, Scene, box, colours_for, draw, to_array, to_image
from editr1.toy.tasks import MAKERS, article
from editr1.toy.world import names_of

SIGNS = ("OPEN", "EXIT", "SALE", "TAXI")


@dataclass(frozen=True)
class Known:
    """A picture whose content is known: a scene, and perhaps a sign in a free cell."""

    scene: Scene
    picture: Image
    sign: str | None = None


def make_known(scene: Scene, sign: str | None) -> Known:
    """The picture of a scene; a sign is written into its first free cell."""
    picture = to_image(draw(scene))
    if sign is not None:
        cell = scene.free()[0]
        x, y = 32 * (cell % 2), 32 * (cell // 2)
        pen = ImageDraw.Draw(picture)
        pen.rectangle((x + 1, y + 8, x + 30, y + 22), fill="white", outline="black")
        pen.text((x + 3, y + 10), sign, fill="black")
    return Known(scene, picture, sign)


def objects_of(known: Known) -> list[dict[str, Any]]:
    """The objects as the questions want them."""
    listed = []
    for thing in known.scene.things:
        rows, columns = box(thing)
        ends = (columns.start, rows.start, columns.stop, rows.stop)
        listed.append({"label": thing.name, "box": [round(1000 * end / SIZE) for end in ends]})
    return listed


def write(known: Known, task: str, label: str, other: str) -> dict[str, Any]:
    """Instruction and requirement of an edit of the toy world; None if the scene does not allow it."""
    if task == "text":
        return write_text(known)
    if task == "reference":
        return {
            "instruction": f"Replace the {label} with the {other} of picture 2.",
            "requirement": f"There is {article(other)} in place of the {label}.",
        }
    if task == "redbox":
        colour = colours_for(label)[0]
        return {
            "instruction": f"Make the {label} in the red box {colour}.",
            "requirement": f"The {label} is {colour}. The red box is gone.",
        }
    edits = (MAKERS[task](np.random.default_rng(seed), known.scene, names_of("small")) for seed in range(200))
    fitting = (edit for edit in edits if edit and re.search(rf"\bthe {label}\b", edit.instruction, re.IGNORECASE))
    if (edit := next(fitting, None)) is None:
        return {"instruction": None}
    return {"instruction": edit.instruction, "requirement": edit.requirement}


def write_text(known: Known) -> dict[str, Any]:
    """Other words for a sign."""
    if known.sign is None:
        return {"instruction": None}
    new = SIGNS[(SIGNS.index(known.sign) + 1) % len(SIGNS)]
    return {
        "instruction": f'Change the text "{known.sign}" to "{new}".',
        "requirement": f'The sign reads "{new}".',
        "old": known.sign,
        "new": new,
    }


class ScriptedServer:
    """Serves in a thread while the context is open.

    Args:
        known: The pictures that it knows.
        spoil: Makes something else of an answer's text; gets its place among all answers too.
        refuses: Whether the chat of this place is answered by an error.

    Attributes:
        chats: Chats so far.
        gate: Chats wait for it, if it is cleared.
    """

    def __init__(
        self,
        known: Sequence[Known],
        spoil: Callable[[str, int], str] = lambda text, place: text,
        refuses: Callable[[int], bool] = lambda place: False,
    ) -> None:
        self.known, self.spoil, self.refuses = known, spoil, refuses
        self.arrays = np.stack([to_array(one.picture) for one in known])
        self.chats = 0
        self.lock = threading.Lock()
        self.gate = threading.Event()
        self.gate.set()
        owner = self

        class Handler(_Handler):
            server_of = owner

        self._http = _Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}/v1"
        self.model = f"openai:{self.url}?model=scripted&tries=1&timeout=120"
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)

    def __enter__(self) -> ScriptedServer:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.gate.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join(60)

    def look(self, picture: Image) -> Known:
        """The picture that is most alike: a red box may be drawn into it."""
        distances = ((self.arrays - to_array(picture)) ** 2).mean((1, 2, 3))
        return self.known[int(distances.argmin())]

    def answer(self, parts: Sequence[str | Image]) -> str:
        """What is written to a question."""
        text = " ".join(part for part in parts if isinstance(part, str))
        known = self.look(next(part for part in parts if isinstance(part, Images.Image)))
        if text.startswith("List"):
            return json.dumps({"objects": objects_of(known)})
        if task := re.search(r"Task: (\w+)\.", text):
            label = re.search(r"Object: ([^.]*)\. This is it", text)
            other = re.search(r"Picture 2: ([^.]*)\.", text)
            return json.dumps(write(known, task[1], label[1] if label else "", other[1] if other else ""))
        return "yes"


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128  # eight talks knock at once; of five that wait, a busy machine sends the others away

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that is gone is no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_of: ScriptedServer

    def do_POST(self) -> None:
        owner = self.server_of
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if self.path == "/tokenize":
            self._send(404, {"detail": "Not Found"})
            return
        owner.gate.wait(120)
        with owner.lock:
            owner.chats += 1
            place = owner.chats
        if owner.refuses(place):
            self._send(500, {"error": {"message": "out of memory"}})
            return
        content = body["messages"][0]["content"]
        text = owner.spoil(owner.answer([_part(part) for part in content]), place)
        choice: dict[str, Any] = {"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        if body.get("logprobs"):
            yes = {"yes": 0.9, "no": 0.05} if text == "yes" else {"yes": 0.05, "no": 0.9}
            top = [{"token": name, "logprob": math.log(share)} for name, share in (*yes.items(), ("w", 1e-5))]
            choice["logprobs"] = {"content": [{**max(top, key=lambda one: one["logprob"]), "top_logprobs": top}]}
            choice["message"]["content"] = choice["logprobs"]["content"][0]["token"]
        self._send(200, {"choices": [choice]})

    def _send(self, status: int, body: Any) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


def _part(part: dict[str, Any]) -> str | Image:
    if part["type"] == "text":
        return str(part["text"])
    return Images.open(io.BytesIO(base64.b64decode(part["image_url"]["url"].partition(",")[2]))).convert("RGB")
