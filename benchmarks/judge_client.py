"""How busy the client keeps a judge server, against a bare asyncio load of the same requests.

    python benchmarks/judge_client.py

A stand-in server in a process of its own takes a fixed time for a request and works on a fixed number at once, as a
judge on a GPU does; how busy it was is counted there: seconds of work / (seconds from first to last request * number at
once). The load sends bodies made beforehand over plain asyncio streams, kept alive. Both see the same server in
turn, several times, with the same number of requests in flight, some of which wait at the server. Writes key
"judge_client" of benchmarks/results.json; exits with 1 under 0.95.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import sys
import time
from statistics import median
from typing import Any

import numpy as np
import results
from PIL import Image

from editr1.config.rewards import JudgeConfig
from editr1.judges.base import Ask
from editr1.judges.models.remote import OpenAIModel, picture_url

AT_ONCE, IN_FLIGHT, REQUESTS, ROUNDS, LEAST = 24, 32, 480, 3, 0.95
WORK = {64: 0.25, 512: 1.0}  # seconds for a request, by the side of its images: 96 and 24 edits a second
GROUP = 12  # edits that share a source


class Server:
    """Answers each request after `work` seconds, `AT_ONCE` at a time."""

    def __init__(self, work: float) -> None:
        self.work = work
        self.room = asyncio.Semaphore(AT_ONCE)
        self.first, self.last, self.count = 0.0, 0.0, 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = next(
                    int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")
                )
                await reader.readexactly(length)
                body = await self.answer(head.split(b" ")[1])
                writer.write(
                    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
                )
                writer.write(body)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def answer(self, path: bytes) -> bytes:
        """A chat completion, the ids of a token, or how busy it was since the last time that this was asked."""
        if path == b"/tokenize":
            return b'{"tokens": [1], "count": 1}'
        if path == b"/busy":
            busy = self.count * self.work / (AT_ONCE * (self.last - self.first))
            self.first, self.count = 0.0, 0
            return json.dumps(busy).encode()
        self.first = self.first or time.perf_counter()
        async with self.room:
            await asyncio.sleep(self.work)
        self.last, self.count = time.perf_counter(), self.count + 1
        listed = [{"token": str(digit), "logprob": -1.8} for digit in range(6)]
        content = [{"token": "3", "logprob": -1.8, "top_logprobs": listed}]
        choice = {"message": {"content": "3"}, "logprobs": {"content": content}, "finish_reason": "length"}
        return json.dumps({"choices": [choice], "usage": {"prompt_tokens": 9, "completion_tokens": 1}}).encode()


def run_server(port: Any, work: float) -> None:
    """The server's process."""

    async def main() -> None:
        server = await asyncio.start_server(Server(work).serve, "127.0.0.1", 0, limit=2**26)
        port.value = server.sockets[0].getsockname()[1]
        await server.serve_forever()

    asyncio.run(main())


async def post(port: int, path: str, bodies: list[bytes]) -> list[bytes]:
    """The bodies in turn over one connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    replies = []
    while bodies:
        body = bodies.pop()
        writer.write(f"POST {path} HTTP/1.1\r\nHost: h\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length"))
        replies.append(await reader.readexactly(length))
    writer.close()
    return replies


async def bare(port: int, bodies: list[bytes]) -> None:
    """All bodies, as many at a time as the client sends."""
    left = list(bodies)
    await asyncio.gather(*(post(port, "/v1/chat/completions", left) for _ in range(IN_FLIGHT)))


def busy(port: int) -> float:
    """How busy the server was since the last time."""
    return float(json.loads(asyncio.run(post(port, "/busy", [b"{}"]))[0]))


def questions(size: int) -> list[Ask]:
    """As a step of training asks: groups of edits that share their source."""
    random = np.random.default_rng(0)

    def picture() -> Image.Image:
        small = Image.fromarray(random.integers(0, 256, (size // 8, size // 8, 3), dtype=np.uint8))
        return small.resize((size, size), Image.Resampling.BICUBIC)

    asks = []
    for _ in range(REQUESTS // GROUP):
        source = picture()
        asks += [
            Ask(("Instruction. Source:", source, "Edit:", picture(), "A digit?"), tuple("012345")) for _ in range(GROUP)
        ]
    return asks


def body_of(ask: Ask) -> bytes:
    """The request as the client sends it, made beforehand."""
    content = [
        {"type": "text", "text": part}
        if isinstance(part, str)
        else {"type": "image_url", "image_url": {"url": picture_url(part, None)}}
        for part in ask.parts
    ]
    settings = {"max_tokens": 1, "temperature": 0.0, "seed": 0, "logprobs": True, "top_logprobs": 20}
    return json.dumps({"model": "m", "messages": [{"role": "user", "content": content}], **settings}).encode()


def busy_shares(port: int, size: int) -> dict[str, float]:
    """Busy share of the server under both loads, medians over the rounds."""
    asks = questions(size)
    bodies = [body_of(ask) for ask in asks]
    shares: dict[str, list[float]] = {"client": [], "bare": []}
    endpoints = (f"http://127.0.0.1:{port}/v1",)
    model = OpenAIModel(JudgeConfig(endpoints=endpoints, model="m", in_flight=IN_FLIGHT))
    for _ in range(ROUNDS):
        asyncio.run(bare(port, bodies))
        shares["bare"].append(busy(port))
        answers = model.answer(asks)
        assert all(answer.reason is None for answer in answers), answers[0].reason
        shares["client"].append(busy(port))
    model.close()
    medians = {name: round(median(values), 4) for name, values in shares.items()}
    return {**medians, "ratio": round(medians["client"] / medians["bare"], 4)}


def measure(quick: bool = False) -> dict[str, Any]:
    """The key of results.json; `quick` asks about small pictures alone."""
    measured = {}
    for size, work in [*WORK.items()][: 1 if quick else None]:
        port = multiprocessing.Value("i", 0)
        server = multiprocessing.Process(target=run_server, args=(port, work), daemon=True)
        server.start()
        while not port.value:
            time.sleep(0.01)
        measured[f"{size}x{size}"] = {"seconds_a_request": work, **busy_shares(port.value, size)}
        server.terminate()
    return {"judge_client": {"at_once": AT_ONCE, "in_flight": IN_FLIGHT, "requests": REQUESTS, **measured}}


def main() -> int:
    """Measure, print, write; 1 where a limit is broken."""
    figures = measure()
    print(json.dumps(figures, indent=1))
    results.add("judge_client", figures, "python benchmarks/judge_client.py")
    ratios = [figures["judge_client"][f"{size}x{size}"]["ratio"] for size in WORK]
    return int(min(ratios) < LEAST)


if __name__ == "__main__":
    sys.exit(main())
