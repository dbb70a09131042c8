"""Strangers who ask `judge serve` and the arena, and run folders of strangers in the arena."""

from __future__ import annotations

import base64
import io
import json
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from PIL import Image

from editr1 import listening
from editr1.evaluation.arena.server import make_app as arena_app
from editr1.evaluation.arena.votes import Votes, read_duels, runs_id
from editr1.evaluation.heldout.rows import EditRow, RowStore
from editr1.judges.base import Answer, Ask, Position
from editr1.judges.models.server import make_app as judge_app
from editr1.listening import HEADERS, listen, server
from editr1.report.run import write_report
from tests.hostile.harness import Case, Judged
from tests.report.synthetic import write_demo

CHAT = "/v1/chat/completions"
PASSWD = "root:x:0:0"


class Model:
    """Answers 3, after a pause."""

    name, remote = "judge", False
    processor = SimpleNamespace(tokenizer=SimpleNamespace(encode=lambda text, **_: [1], model_max_length=99))

    def __init__(self, pause: float = 0.0) -> None:
        self.pause = pause

    def answer_top(self, asks: Sequence[Ask], top: int) -> list[Answer]:
        time.sleep(self.pause)
        return [Answer("3", (Position("3", {"3": -0.1}),), completion_tokens=1) for _ in asks]

    answer = token_id = token_text = None


@contextmanager
def running(app: Any, host: str = "127.0.0.1") -> Iterator[str]:
    """The app on a real socket; it ends with the process."""
    logging.basicConfig(level=logging.WARNING, force=True)  # on the error stream, in place of pytest's
    listener, url = listen(host, 0)
    threading.Thread(target=server(app).run, kwargs={"sockets": [listener]}, daemon=True).start()
    yield url


@contextmanager
def judge(host: str = "127.0.0.1", pause: float = 0.0) -> Iterator[str]:
    with running(judge_app(Model(pause), host=host), host) as url:  # type: ignore[arg-type]
        yield url


def png_url(image: Image.Image) -> str:
    image.save(file := io.BytesIO(), "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def message(*parts: Any) -> dict[str, Any]:
    return {"model": "judge", "messages": [{"role": "user", "content": list(parts)}], "max_tokens": 1}


def images(size: int, count: int) -> bytes:
    part = {"type": "image_url", "image_url": {"url": png_url(Image.new("1", (size, size)))}}
    return json.dumps(message(*[part] * count)).encode()


TEXT = message({"type": "text", "text": "say"})


def post(content: Callable[[], Any], status: int, folder: Path, path: str = CHAT, **headers: str) -> None:
    with judge() as url:
        reply = httpx.post(url + path, content=content(), headers=headers, timeout=50)
        assert reply.status_code == status, reply.text[:300]
        assert all(name in reply.headers for name in HEADERS)
        assert httpx.get(f"{url}/health").status_code == 200


def get_as(host: str, status: int, folder: Path, **headers: str) -> None:
    with judge() as url:
        reply = httpx.get(f"{url}/v1/models", headers={"Host": host, **headers})
        assert reply.status_code == status, reply.text
        assert all(name in reply.headers for name in HEADERS)


def listen_at(host: str, folder: Path) -> None:
    with judge(host) as url:
        port = url.rpartition(":")[2]
        for name in {"::1": ("[::1]",), "0.0.0.0": ("127.0.0.1", "localhost")}.get(host, (host,)):
            assert httpx.get(f"http://{name}:{port}/health").status_code == 200
        assert httpx.get(f"{url}/health", headers={"Host": "evil.example"}).status_code == 400


def raw(content: bytes) -> Callable[[str], bytes]:
    """What is answered to these bytes."""

    def ask(url: str) -> bytes:
        with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), timeout=20) as connection:
            connection.sendall(content)
            return b"".join(iter(partial(connection.recv, 2**16), b""))

    return ask


def guarded(status: int, content: bytes, app: Callable[[], Any], folder: Path) -> None:
    """Every answer has each of the headers once, also one that the framework gives."""
    with running(app()) as url:
        logging.disable()  # what is not foreseen is logged with its traceback
        head, _, _ = raw(content)(url).partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    assert first.split()[1] == str(status), head
    names = [line.partition(":")[0].lower() for line in lines]
    assert all(names.count(name.lower()) == 1 for name in HEADERS), head


class Broken(Model):
    """Fails in a way that nothing foresees."""

    name = property(lambda self: Model.missing)  # type: ignore[attr-defined]


def broken_app() -> Any:
    return judge_app(Broken())  # type: ignore[arg-type]


def judge_of_nobody() -> Any:
    return judge_app(Model())  # type: ignore[arg-type]


async def falls_over(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "http":
        raise ValueError("before it answers")


def empty_arena() -> Any:
    return arena_app([], SimpleNamespace(keys=set(), lines=[], counts={}, path="votes.jsonl"))  # type: ignore[arg-type]


def request(line: str, *headers: str) -> bytes:
    return "\r\n".join([f"{line} HTTP/1.1", "Host: localhost", "Connection: close", *headers, "", ""]).encode()


GUARDED = (
    ("a page", 200, request("GET /"), empty_arena),
    ("an unknown path", 404, request("GET /x"), empty_arena),
    ("a method that is not there", 405, request("PUT /vote"), empty_arena),
    ("a vote that is none", 422, request("POST /vote", "Content-Length: 2", "Content-Type: application/json") + b"{}",
     empty_arena),
    ("a picture of a text", 422, request("GET /image/x/left"), empty_arena),
    ("a picture of another side", 422, request("GET /image/0/up"), empty_arena),
    ("no HTTP", 400, b"nonsense\r\n\r\n", empty_arena),
    ("an unknown path", 404, request("GET /x"), judge_of_nobody),
    ("a method that is not there", 405, request("DELETE /health"), judge_of_nobody),
    ("no JSON", 400, request("POST " + CHAT, "Content-Length: 1") + b"{", judge_of_nobody),
    ("no HTTP", 400, b"\x00\x01\r\n\r\n", judge_of_nobody),
    ("two hosts", 400, request("GET /", "Host: localhost"), judge_of_nobody),
    ("another name", 400, request("GET /").replace(b"localhost", b"evil.example"), judge_of_nobody),
    ("a failure that is not foreseen", 500, request("GET /v1/models"), broken_app),
    ("an application that falls over", 500, request("GET /"), lambda: falls_over),
)  # fmt: skip


def called(names: tuple[str, ...], host: str, status: int, folder: Path) -> None:
    """Names that the user allows are this server's, whatever the port; the others are not."""
    with running(judge_app(Model(), names=names)) as url:  # type: ignore[arg-type]
        for name in (host, f"{host}:8000", host.upper()):
            assert httpx.get(f"{url}/health", headers={"Host": name}).status_code == status
        origin = {"Host": host, "Origin": "http://evil.example"}
        assert httpx.get(f"{url}/health", headers=origin).status_code == max(status, 400 if status == 400 else 403)


SERVICE = ("judge", "judge.training.svc.cluster.local")


def chunks(count: int) -> Iterator[bytes]:
    for _ in range(count):
        yield b" " * 2**20


def is_closed(connection: socket.socket, seconds: float) -> bool:
    connection.settimeout(seconds)
    with suppress(ConnectionError):
        while connection.recv(2**16):
            pass
    return True


def dawdle(first: bytes, folder: Path) -> None:
    """A client that says this and then nothing is sent away; a slow one too."""
    listening.PATIENCE = 0.5
    with judge() as url, socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2]))) as connection:
        httpx.get(f"{url}/health")
        connection.sendall(first)
        assert is_closed(connection, 20)
        assert httpx.get(f"{url}/health").status_code == 200


def drip(head: bytes, folder: Path) -> None:
    listening.PATIENCE = 1.0
    with judge() as url, socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2]))) as connection:
        connection.sendall(head)
        started = time.monotonic()
        with suppress(ConnectionError):
            while time.monotonic() - started < 20:
                connection.sendall(b"a")
                time.sleep(0.05)
        assert time.monotonic() - started < 15


def leave(pause: float, count: int, folder: Path) -> None:
    """Clients that leave before their answer; the harness looks for tracebacks in the log."""
    body = json.dumps(TEXT).encode()
    head = f"POST {CHAT} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    with judge(pause=0.2) as url:
        port = int(url.rpartition(":")[2])
        for number in range(count):
            with socket.create_connection(("127.0.0.1", port)) as connection:
                connection.sendall(head + body[: len(body) if number % 3 else 20])
                time.sleep(pause)
        assert httpx.post(url + CHAT, json=TEXT, timeout=50).status_code == 200
    time.sleep(0.5)


def babble(content: bytes, folder: Path) -> None:
    with judge() as url:
        with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2]))) as connection:
            with suppress(ConnectionError):
                connection.sendall(content)
            connection.shutdown(socket.SHUT_WR)
            is_closed(connection, 30)
        assert httpx.get(f"{url}/health").status_code == 200


GET = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
POSTS: dict[str, tuple[Callable[[], Any], int]] = {
    "a question": (lambda: json.dumps(TEXT).encode(), 200),
    "four one-bit pictures of 13000x13000": (partial(images, 13000, 4), 400),
    "eight one-bit pictures of 8000x8000": (partial(images, 8000, 8), 400),
    "a picture of 9000x9000": (partial(images, 9000, 1), 400),
    "a body of 40 MB": (lambda: b" " * 40 * 2**20, 413),
    "a chunked body of 40 MB": (partial(chunks, 40), 413),
    "ten million objects": (lambda: b"[" + b"{}," * 10**7 + b"{}]", 400),
    "ten million numbers": (lambda: b'{"logprob_token_ids": [' + b"1," * 10**7 + b"1]}", 400),
    "nesting": (lambda: b"[" * 90_000 + b"]" * 90_000, 400),
    "a text of 20 MB": (lambda: json.dumps(message({"type": "text", "text": "a" * 20 * 2**20})).encode(), 400),
    "no UTF-8": (lambda: b'{"model": "\xff\xfe"}', 400),
    "a lone surrogate": (lambda: b'{"model": "\\ud800"}', 400),
    "5,000 digits": (lambda: b'{"model": "judge", "n": ' + b"9" * 5000 + b"}", 400),
    "an SVG": (lambda: json.dumps(message(picture("data:image/svg+xml;base64,PHN2Zz4="))).encode(), 400),
    "an EPS called PNG": (lambda: json.dumps(message(picture("data:image/png;base64,JSFQUy1BZG9iZQ=="))).encode(), 400),
    "a TIFF called PNG": (lambda: json.dumps(message(picture("data:image/png;base64,SUkqAAgAAAA="))).encode(), 400),
}


def picture(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


HOSTS = {
    "127.0.0.1": 200, "127.0.0.1:8000": 200, "localhost": 200, "LOCALHOST:1": 200, "[::1]:8000": 200,
    "192.168.1.7": 200,
    "evil.example": 400, "localhost.evil.example": 400, "127.0.0.1.evil.example": 400, "[": 400, "": 400, "[::1": 400,
    "localhost@evil.example": 400, "evil.example:80@localhost": 200, "a b": 400, "localhost:99999999": 200,
}  # fmt: skip
BABBLE = {
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256)) * 4,
    "zeros": bytes(100_000),
    "HTTP/9": b"GET / HTTP/9.9\r\n\r\n",
    "no host": b"GET /health HTTP/1.0\r\n\r\n",
    "two hosts": b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil\r\n\r\n",
    "two lengths": b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "smuggling": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "nonsense behind a request": GET + b"\x00\xff" * 1000,
    "a thousand requests at once": GET * 1000,
    "a head of 1 MB": b"GET / HTTP/1.1\r\nX: " + b"a" * 2**20,
    "bad chunks": b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    "a web socket": GET.replace(b"\r\n\r\n", b"\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"),
    "h2c": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a path of bytes": b"GET /%00%ff%2e%2e/\xff HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "expectations": GET.replace(b"\r\n\r\n", b"\r\nExpect: the worst\r\n\r\n"),
    "a length of 10^400": b"POST /tokenize HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1" + b"0" * 400 + b"\r\n\r\n",
}
SLOW = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999\r\n\r\n".encode()
SERVE = (
    *(Case(f"serve: {name}", partial(post, *entry), "clean") for name, entry in POSTS.items()),
    *(Case(f"serve: as {name!r}", partial(get_as, name, status), "clean") for name, status in HOSTS.items()),
    *(
        Case(f"serve: from {origin}", partial(get_as, "127.0.0.1:80", status, Origin=origin), "clean")
        for origin, status in {"http://evil.example": 403, "null": 403, "http://127.0.0.1:80": 200}.items()
    ),
    *(Case(f"serve: at {host}", partial(listen_at, host), "clean") for host in ("127.0.0.1", "::1", "0.0.0.0")),
    *(Case(f"serve: {name}", partial(babble, content), "clean") for name, content in BABBLE.items()),
    Case("serve: a client that says nothing", partial(dawdle, b""), "clean"),
    Case("serve: a client that stops in the head", partial(dawdle, b"GET / HT"), "clean"),
    Case("serve: a client that stops in the body", partial(dawdle, SLOW + b"{"), "clean"),
    Case("serve: a client that stops in its second head", partial(dawdle, GET + b"GET / HT"), "clean"),
    Case("serve: a head that drips", partial(drip, b"GET / HTTP/1.1\r\nX: "), "clean"),
    Case("serve: a body that drips", partial(drip, SLOW), "clean"),
    Case("serve: 50 clients that leave at once", partial(leave, 0.0, 50), "clean"),
    Case("serve: 15 clients that leave soon", partial(leave, 0.1, 15), "clean"),
)

SERVE += (
    *(
        Case(f"headers of {name}, {app.__name__.strip('<>')}", partial(guarded, status, content, app), "clean")
        for name, status, content, app in GUARDED
    ),
    *(Case(f"called {name}", partial(called, SERVICE, name, 200), "clean") for name in SERVICE),
    *(
        Case(f"called {name}, which nobody allows", partial(called, SERVICE, name, 400), "clean")
        for name in ("judges", "judge.evil.example", "evil.judge", "training.svc.cluster.local")
    ),
    Case("called judge, and no name is allowed", partial(called, (), "judge", 400), "clean"),
)


@pytest.mark.parametrize("case", SERVE, ids=str)
def test_nobody_breaks_judge_serve(case: Case, judged: Judged) -> None:
    judged(case)


def run_folder(folder: Path, image: Any = "item_0.png", key: str = "item") -> Path:
    """An evaluation of one item; the file of its edit is what a stranger writes there."""
    store = RowStore(folder, {})
    store.save_image("item", "source", Image.new("RGB", (8, 8)))
    store.save_image("item", 0, Image.new("RGB", (8, 8), "red"))
    store.add([EditRow(key, "add", 0, "Add it.", None, None, {}, image)])
    return folder


def show(prepare: Callable[[Path], Any], folder: Path) -> None:
    """A file that is no picture of the run is refused, or not served, nor copied beside the votes."""
    foreign = folder / "foreign"
    foreign.mkdir()
    runs = run_folder(foreign, prepare(foreign)), run_folder(folder / "own")
    votes = Votes(folder / "votes/votes.jsonl", runs_id(*runs))
    with running(arena_app(read_duels(*runs), votes)) as url:
        replies = [httpx.get(f"{url}/image/0/{which}") for which in ("source", "left", "right")]
        pair = {"index": 0, "choice": "tie"}
        replies.append(httpx.post(f"{url}/vote", json=pair, headers={"Origin": url}))
    assert not any(word in reply.text for reply in replies for word in (PASSWD, "<script>", "planted"))
    assert sorted(reply.headers["content-type"] for reply in replies[:3]).count("image/png") == 2
    assert replies[3].status_code == 507, replies[3].text
    assert all(name in reply.headers for reply in replies for name in HEADERS)
    for file in (folder / "votes").rglob("*.png"):
        assert file.read_bytes().startswith(b"\x89PNG")


def written(name: str, content: bytes, folder: Path) -> str:
    (folder / name).write_bytes(content)
    return name


def linked(target: str, folder: Path) -> str:
    (folder / "link.png").symlink_to(target)
    return "link.png"


def large(folder: Path) -> str:
    Image.new("1", (13000, 13000)).save(folder / "large.png")
    return "large.png"


OUTSIDE: dict[str, Callable[[Path], Any]] = {
    "/etc/passwd": lambda _: "/etc/passwd",
    "a path upwards": lambda _: "../../../../../../etc/passwd",
    "a link": partial(linked, "/etc/passwd"),
    "a link to a device": partial(linked, "/dev/zero"),
    "a NUL": lambda _: "a\0b.png",
    "a number": lambda _: 7,
    "a list": lambda _: ["a.png"],
    "a picture beside the folder": lambda folder: written("../beside.png", b"\x89PNG", folder),
}
WITHIN: dict[str, Callable[[Path], Any]] = {
    "HTML": partial(written, "page.html", b"<script>alert(1)</script>"),
    "HTML called PNG": partial(written, "page.png", b"<script>alert(1)</script>"),
    "SVG": partial(written, "page.svg", b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>"),
    "words": partial(written, "words.png", b"planted words"),
    "a folder": lambda folder: ".",
    "a missing file": lambda folder: "none.png",
    "a picture of 13000x13000": large,
    "300 letters": lambda folder: "a" * 300,
}


def vote_at_length(folder: Path) -> None:
    runs = run_folder(folder / "a"), run_folder(folder / "b")
    with running(arena_app(read_duels(*runs), Votes(folder / "v.jsonl", runs_id(*runs)))) as url:
        for content in (b" " * 10**7, chunks(10)):
            reply = httpx.post(f"{url}/vote", content=content, headers={"Origin": url})
            assert reply.status_code == 413
        page = httpx.get(url)
        assert page.status_code == 200 and all(name in page.headers for name in HEADERS)


ARENA = (
    *(Case(f"arena: {name}", partial(show, prepare)) for name, prepare in OUTSIDE.items()),
    *(Case(f"arena: {name}", partial(show, prepare), "clean") for name, prepare in WITHIN.items()),
    Case("arena: votes of 10 MB", vote_at_length, "clean"),
)


@pytest.mark.parametrize("case", ARENA, ids=str)
def test_no_run_folder_makes_the_arena_show_other_files(case: Case, judged: Judged) -> None:
    judged(case)


def report_with(prepare: Callable[[Path], None], folder: Path) -> None:
    write_demo(run := folder / "run", items=2)
    prepare(run)
    page = write_report(run).read_text(encoding="utf-8")
    assert base64.b64encode(PASSWD.encode()).decode()[:10] not in page


def link_in_place_of(pattern: str, run: Path) -> None:
    file = next(run.glob(pattern))
    file.unlink()
    file.symlink_to("/etc/passwd")


def evaluated_in(name: str, run: Path) -> None:
    results = json.loads((run / "results.json").read_text(encoding="utf-8"))
    (run / "results.json").write_text(json.dumps({**results, "after": name}), encoding="utf-8")


REPORTS = (
    Case("report: a link as a grid", partial(report_with, partial(link_in_place_of, "samples/step_*.png"))),
    Case("report: a link as an edit", partial(report_with, partial(link_in_place_of, "evaluation/after/*_0.png"))),
    Case("report: edits in /etc", partial(report_with, partial(evaluated_in, "/etc"))),
    Case("report: edits above the run", partial(report_with, partial(evaluated_in, "../.."))),
)


@pytest.mark.parametrize("case", REPORTS, ids=str)
def test_no_run_folder_makes_a_report_show_other_files(case: Case, judged: Judged) -> None:
    judged(case)
