"""`editr1 judge serve`: a small server that speaks OpenAI's chat protocol, over a model in this process.

It answers one batch at a time, made of the questions that wait. Of vLLM's extensions it knows those that make scores
exact: `logprob_token_ids` and `/tokenize`. It fetches nothing: images come as data URLs.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any, Protocol, TypeVar

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from editr1.config.rewards import JUDGE_DEFAULTS
from editr1.errors import UserError, first_line
from editr1.judges.base import MLLM, Answer, Ask, Position
from editr1.judges.models.questions import HELD_MAX, Chat, Memory, Refused, Tokenize, area, picture, read_body
from editr1.listening import Guard, listen, server

QUEUE = 1024
BODY_MAX = 32 * 2**20
PLACEHOLDER = -9999.0  # vLLM's value for an unknown log-probability

T = TypeVar("T")
_log = logging.getLogger(__name__)


class Served(MLLM, Protocol):
    """What a served model must do besides answering. It is called from one thread only."""

    processor: Any

    def answer_top(self, asks: Sequence[Ask], top: int) -> list[Answer]: ...

    def token_id(self, text: str) -> int: ...

    def token_text(self, token: int) -> str: ...


class Batcher:
    """Answers the questions that wait, one batch at a time; the model is used in one thread only."""

    def __init__(self, model: Served, batch_size: int, wait: float) -> None:
        self.model, self.batch_size, self.wait = model, batch_size, wait
        self.queue: asyncio.Queue[tuple[Ask, int, asyncio.Future[Answer]]] = asyncio.Queue(QUEUE)
        self.texts: dict[int, str] = {}
        self._thread = ThreadPoolExecutor(1, "judge")

    async def ask(self, ask: Ask, top: int) -> Answer:
        """The answer, once its batch is done."""
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        try:
            self.queue.put_nowait((ask, top, future))
        except asyncio.QueueFull:
            raise Refused(429, f"{QUEUE} questions wait already", "overloaded") from None
        return await future

    async def choices(self, ids: Sequence[int]) -> tuple[str, ...]:
        """The tokens that a client names by their ids."""
        if new := [token for token in ids if token not in self.texts]:
            self.texts.update(await self.run(_texts, self.model, new))
        return tuple(self.texts[token] for token in ids)

    async def run(self, function: Callable[..., T], *args: Any) -> T:
        """Call `function` in the model's thread."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *args)

    async def work(self) -> None:
        """Answer until cancelled."""
        while True:
            batch = [await self.queue.get()]
            if self.queue.qsize() < self.batch_size - 1:
                await asyncio.sleep(self.wait)
            while len(batch) < self.batch_size and not self.queue.empty():
                batch.append(self.queue.get_nowait())
            if batch := [entry for entry in batch if not entry[2].done()]:
                await self._answer(batch)

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        """Inside, questions are answered; at the end the thread ends after its batch."""
        worker = asyncio.create_task(self.work())
        yield
        worker.cancel()
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _answer(self, batch: Sequence[tuple[Ask, int, asyncio.Future[Answer]]]) -> None:
        """Answer a batch; if it fails, try each of its questions alone, so that it fails for its own reasons only."""
        asks, top = [ask for ask, _, _ in batch], max(top for _, top, _ in batch)
        job = asyncio.ensure_future(self.run(self.model.answer_top, asks, top))
        await asyncio.wait([job])
        error = job.exception()
        if error is None:
            for (_, _, future), answer in zip(batch, job.result(), strict=True):
                if not future.done():
                    future.set_result(answer)
            return
        expected = isinstance(error, RuntimeError | ValueError | UserError)
        _log.warning("a batch of %d failed: %s", len(asks), error, exc_info=None if expected else error)
        if len(batch) > 1:
            for entry in batch:
                if not entry[2].done():
                    await self._answer([entry])
        elif not batch[0][2].done():
            batch[0][2].set_exception(_refusal(error))


def make_app(
    model: Served,
    *,
    batch_size: int = JUDGE_DEFAULTS.batch_size,
    wait_ms: float = 5,
    host: str = "127.0.0.1",
    names: Sequence[str] = (),
) -> FastAPI:
    """The application at `host`, which clients may call by further names.

    A batch with room waits `wait_ms` milliseconds for more questions.
    """
    batcher, memory = Batcher(model, batch_size, wait_ms / 1000), Memory(HELD_MAX)
    app = FastAPI(lifespan=lambda app: batcher.working(), docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(Guard, host=host, body_max=BODY_MAX, refuse=_error, names=names)
    _add_errors(app)

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [{"id": model.name, "object": "model", "owned_by": "editr1"}]}

    @app.post("/tokenize")
    async def tokenize(request: Request) -> dict[str, Any]:
        with memory.share() as take:
            body = await read_body(request, Tokenize, take)
        _check_name(body.model, model)
        tokenizer = model.processor.tokenizer
        ids = await batcher.run(lambda: tokenizer.encode(body.prompt, add_special_tokens=body.add_special_tokens))
        longest = min(tokenizer.model_max_length, 2**31 - 1)  # some tokenizers know no limit
        return {"tokens": ids, "count": len(ids), "max_model_len": longest}

    @app.post("/v1/chat/completions")
    async def chat(request: Request) -> dict[str, Any]:
        with memory.share() as take:
            body = await read_body(request, Chat, take)
            _check_name(body.model, model)
            return await _answered(batcher, request, body, take)

    return app


async def _answered(batcher: Batcher, request: Request, body: Chat, take: Callable[[int], None]) -> dict[str, Any]:
    """The completion of a chat, for whose pictures `take` sets memory aside."""
    choices = await batcher.choices(body.logprob_token_ids)
    parts, system = body.question, body.system
    take(3 * sum(map(area, parts)))
    shown = tuple([await asyncio.to_thread(picture, part) if isinstance(part, bytes) else part for part in parts])
    tokens = body.max_completion_tokens or body.max_tokens or 256
    asks = [
        Ask(shown, choices, tokens, body.temperature, (body.seed + i) % 2**31, system=system) for i in range(body.n)
    ]
    top = int(body.logprobs) if choices or not body.logprobs else max(body.top_logprobs, 1)
    answers = await _unless_gone(request, asyncio.gather(*(batcher.ask(ask, top) for ask in asks)))
    for answer in answers:
        if answer.reason is not None:
            raise Refused(500, answer.reason, "server_error")
    return _completion(batcher.model.name, body, asks[0], answers)


def _add_errors(app: FastAPI) -> None:
    """Answer errors in OpenAI's form."""

    @app.exception_handler(Refused)
    async def refused(request: Request, error: Refused) -> JSONResponse:
        headers = {"Retry-After": "1"} if error.status == 429 else None
        return _error(error.status, str(error), error.kind, headers)

    @app.exception_handler(HTTPException)
    async def unknown(request: Request, error: HTTPException) -> JSONResponse:
        return _error(error.status_code, f"{request.method} {request.url.path}: {error.detail}")

    @app.exception_handler(ClientDisconnect)
    async def gone(request: Request, error: ClientDisconnect) -> JSONResponse:
        return _error(499, "the client went away")

    @app.exception_handler(Exception)
    async def broken(request: Request, error: Exception) -> JSONResponse:
        return _error(500, type(error).__name__, "server_error")


def serve(model: Served, *, host: str, port: int, batch_size: int, names: Sequence[str] = ()) -> None:
    """Serve until Ctrl-C; requests may call this server by further `names`.

    Raises:
        UserError: The address is taken, or not of this machine.
    """
    listener, url = listen(host, port)
    _log.info("Serving %s at %s (Ctrl-C ends it)", model.name, f"{url}/v1")
    server(make_app(model, batch_size=batch_size, host=host, names=names)).run(sockets=[listener])


def _check_name(name: str, model: MLLM) -> None:
    if name != model.name:
        raise Refused(404, f"the model {name!r} is not served here; there is {model.name!r}", "not_found_error")


async def _unless_gone(request: Request, answers: asyncio.Future[T]) -> T:
    """The answers; they are withdrawn if the client closes its connection.

    Raises:
        ClientDisconnect: The client closed its connection.
    """
    gone = asyncio.create_task(_end(request))
    try:
        await asyncio.wait((gone, answers), return_when=asyncio.FIRST_COMPLETED)
        if not answers.done():
            raise ClientDisconnect
        return answers.result()
    finally:
        gone.cancel()
        answers.cancel()
        await asyncio.gather(gone, answers, return_exceptions=True)  # else asyncio logs that nobody took their ends


async def _end(request: Request) -> None:
    """Wait for the end of the connection; the body has been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _refusal(error: BaseException) -> Refused:
    """The reply to a client after a failure: its question cannot be taken, or the server is in trouble."""
    words = f"{type(error).__name__}: {first_line(error)}"
    if isinstance(error, ValueError | UserError):  # such as an image that the model cannot take
        return Refused(400, words)
    return Refused(500, words, "server_error")


def _texts(model: Served, ids: Sequence[int]) -> dict[int, str]:
    """Tokens by their ids."""
    try:
        texts = {token: model.token_text(token) for token in ids}
        if all(model.token_id(text) == token for token, text in texts.items()):
            return texts
    except (IndexError, OverflowError, TypeError, UserError) as error:
        raise Refused(400, f"logprob_token_ids: {error}") from error
    raise Refused(400, "logprob_token_ids: they are not all tokens that can be written alone")


def _completion(name: str, body: Chat, ask: Ask, answers: Sequence[Answer]) -> dict[str, Any]:
    """The answers in OpenAI's form."""
    read, written = answers[0].prompt_tokens, sum(answer.completion_tokens for answer in answers)
    return {
        "id": f"chatcmpl-{uuid.uuid4().hex}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": name,
        "choices": [_choice(index, body, ask, answer) for index, answer in enumerate(answers)],
        "usage": {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written},
    }


def _choice(index: int, body: Chat, ask: Ask, answer: Answer) -> dict[str, Any]:
    listed = [_token(position, ask.choices, body.top_logprobs) for position in answer.positions]
    return {
        "index": index,
        "message": {"role": "assistant", "content": answer.text},
        "logprobs": {"content": listed} if body.logprobs else None,
        "finish_reason": "stop" if answer.completion_tokens < ask.max_tokens else "length",
    }


def _token(position: Position, choices: Sequence[str], top: int) -> dict[str, Any]:
    """A token with its alternatives: the named ones, else the likeliest."""
    known = position.logprobs
    names = choices or sorted(known, key=known.__getitem__, reverse=True)[:top]
    own = known.get(position.token, PLACEHOLDER)
    listed = [{"token": name, "logprob": known[name], "bytes": None} for name in names]
    return {"token": position.token, "logprob": own, "bytes": None, "top_logprobs": listed}


def _error(
    status: int, message: str, kind: str = "invalid_request_error", headers: dict[str, str] | None = None
) -> JSONResponse:
    return JSONResponse({"error": {"message": message, "type": kind, "code": status}}, status, headers)
