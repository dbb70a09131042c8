"""`editr1 judge serve`: a small server that speaks OpenAI's chat protocol, over a model in this process.

One batch at a time: questions that wait are answered together. Of vLLM's extensions it knows those that make scores
exact: `logprob_token_ids`, and `/tokenize`. It fetches nothing: images come as data URLs.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import io
import logging
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Literal, Protocol

import uvicorn
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from PIL import Image
from pydantic import BaseModel, Field

from editr1.errors import UserError
from editr1.judges.base import MLLM, Answer, Ask, Position

QUEUE = 1024
BODY_MAX = 32 * 2**20
IMAGES_MAX = 8
KINDS = ("data:image/png;base64,", "data:image/jpeg;base64,", "data:image/webp;base64,")

_log = logging.getLogger(__name__)


class Served(MLLM, Protocol):
    """What a served model can do beside answering."""

    def answer_top(self, asks: Sequence[Ask], top: int) -> list[Answer]: ...

    def token_id(self, text: str) -> int: ...

    def token_text(self, token: int) -> str: ...


class Message(BaseModel):
    """Text, or texts and images in order."""

    role: Literal["user"]
    content: str | list[dict[str, Any]]


class Chat(BaseModel):
    """A chat request; what it holds beside this is left out of account, as clients send much."""

    model: str
    messages: list[Message] = Field(min_length=1, max_length=1)
    max_tokens: int | None = Field(default=None, ge=1, le=4096)
    max_completion_tokens: int | None = Field(default=None, ge=1, le=4096)
    temperature: float = Field(default=1.0, ge=0, le=2)
    seed: int = Field(default=0, ge=0, lt=2**31)
    n: Literal[1] = 1
    stream: Literal[False] = False
    logprobs: bool = False
    top_logprobs: int = Field(default=0, ge=0, le=20)
    logprob_token_ids: list[int] = Field(default=[], max_length=128)


class Tokenize(BaseModel):
    """A request for the tokens of a text."""

    model: str
    prompt: str


class Refused(Exception):
    """A request that is answered with an error."""

    def __init__(self, status: int, message: str, kind: str = "invalid_request_error") -> None:
        super().__init__(message)
        self.status, self.kind = status, kind


class Batcher:
    """Answers questions in batches of what waits, one batch at a time, in a thread of its own."""

    def __init__(self, model: Served, batch_size: int) -> None:
        self.model, self.batch_size = model, batch_size
        self.queue: asyncio.Queue[tuple[Ask, int, asyncio.Future[Answer]]] = asyncio.Queue(QUEUE)

    async def ask(self, ask: Ask, top: int) -> Answer:
        """The answer, once its batch is done."""
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        try:
            self.queue.put_nowait((ask, top, future))
        except asyncio.QueueFull:
            raise Refused(429, f"{QUEUE} questions wait already", "overloaded") from None
        return await future

    async def work(self) -> None:
        """Answer for ever."""
        while True:
            batch = [await self.queue.get()]
            await asyncio.sleep(0)  # requests that have arrived with it are parsed first
            while len(batch) < self.batch_size and not self.queue.empty():
                batch.append(self.queue.get_nowait())
            batch = [entry for entry in batch if not entry[2].cancelled()]
            if batch:
                await self._answer(batch)

    async def _answer(self, batch: Sequence[tuple[Ask, int, asyncio.Future[Answer]]]) -> None:
        asks, top = [ask for ask, _, _ in batch], max(top for _, top, _ in batch)
        try:
            answers = await asyncio.to_thread(self.model.answer_top, asks, top)
        except (RuntimeError, ValueError, UserError) as error:  # out of memory, an image that the model cannot take
            _log.warning("a batch of %d failed: %s", len(asks), error)
            answers = [Answer(reason=f"{type(error).__name__}: {str(error).partition(chr(10))[0]}")] * len(asks)
        for (_, _, future), answer in zip(batch, answers, strict=True):
            if not future.done():
                future.set_result(answer)


def make_app(model: Served, *, batch_size: int = 16) -> FastAPI:
    """The application."""
    batcher = Batcher(model, batch_size)

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        worker = asyncio.create_task(batcher.work())
        yield
        worker.cancel()

    app = FastAPI(lifespan=life, docs_url=None, redoc_url=None, openapi_url=None)

    _add_errors(app)

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [{"id": model.name, "object": "model", "owned_by": "editr1"}]}

    @app.post("/tokenize")
    async def tokenize(body: Tokenize) -> dict[str, Any]:
        _check_name(body.model, model)
        try:
            return {"tokens": [model.token_id(body.prompt)], "count": 1}
        except UserError as error:
            raise Refused(400, str(error)) from error

    @app.post("/v1/chat/completions")
    async def chat(body: Chat) -> dict[str, Any]:
        _check_name(body.model, model)
        choices = _choices(body.logprob_token_ids, model)
        tokens = body.max_completion_tokens or body.max_tokens or 256
        ask = Ask(_parts(body.messages[0]), choices, tokens, body.temperature, body.seed)
        top = 0 if choices or not body.logprobs else max(body.top_logprobs, 1)
        answer = await batcher.ask(ask, top)
        if answer.reason is not None:
            raise Refused(500, answer.reason, "server_error")
        return _completion(model.name, body, answer)

    return app


def _add_errors(app: FastAPI) -> None:
    """What is wrong is answered in OpenAI's form."""

    @app.exception_handler(Refused)
    async def refused(request: Request, error: Refused) -> JSONResponse:
        headers = {"Retry-After": "1"} if error.status == 429 else None
        return _error(error.status, str(error), error.kind, headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        return _error(400, f"{'.'.join(map(str, first['loc'][1:]))}: {first['msg']}", "invalid_request_error")

    @app.middleware("http")
    async def small(request: Request, go_on: Any) -> Any:
        if int(request.headers.get("content-length", 0)) > BODY_MAX:
            return _error(413, f"a request may have {BODY_MAX} bytes", "invalid_request_error")
        return await go_on(request)


def serve(model: Served, *, host: str = "127.0.0.1", port: int = 8000, batch_size: int = 16) -> None:
    """Serve until Ctrl-C.

    Raises:
        UserError: the address is taken, or is not of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except (OSError, OverflowError) as error:
        listener.close()
        raise UserError(f"cannot listen at {host}:{port} ({error}): choose another --port") from error
    url = f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}/v1"
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    _log.info("Serving %s at %s (Ctrl-C ends it)", model.name, url)
    config = uvicorn.Config(make_app(model, batch_size=batch_size), log_level="warning", access_log=False)
    uvicorn.Server(config).run(sockets=[listener])


def _check_name(name: str, model: MLLM) -> None:
    if name != model.name:
        raise Refused(404, f"the model {name!r} is not served here; there is {model.name!r}", "not_found_error")


def _choices(ids: Sequence[int], model: Served) -> tuple[str, ...]:
    """The tokens that a client names."""
    try:
        choices = tuple(model.token_text(token) for token in ids)
        if [model.token_id(choice) for choice in choices] == list(ids):
            return choices
    except (IndexError, OverflowError, TypeError, UserError) as error:
        raise Refused(400, f"logprob_token_ids: {error}") from error
    raise Refused(400, "logprob_token_ids: they are not all tokens that can be written alone")


def _parts(message: Message) -> tuple[str | Image.Image, ...]:
    """The message's texts and images."""
    if isinstance(message.content, str):
        return (message.content,)
    parts: list[str | Image.Image] = []
    for part in message.content:
        if part.get("type") == "text" and isinstance(part.get("text"), str):
            parts.append(part["text"])
        elif part.get("type") == "image_url" and isinstance(part.get("image_url"), dict):
            parts.append(_image(str(part["image_url"].get("url"))))
        else:
            raise Refused(400, "content holds parts of the types text and image_url only")
    if sum(not isinstance(part, str) for part in parts) > IMAGES_MAX:
        raise Refused(400, f"a message may hold {IMAGES_MAX} images")
    return tuple(parts)


def _image(url: str) -> Image.Image:
    kind = next((kind for kind in KINDS if url.startswith(kind)), None)
    if kind is None:
        raise Refused(400, "an image must be a data URL of PNG, JPEG or WebP: nothing is fetched")
    try:
        return Image.open(io.BytesIO(base64.b64decode(url[len(kind) :], validate=True))).convert("RGB")
    except (OSError, binascii.Error, ValueError, Image.DecompressionBombError) as error:
        raise Refused(400, f"an image cannot be read: {error}") from error


def _completion(name: str, body: Chat, answer: Answer) -> dict[str, Any]:
    """The answer as OpenAI's clients read it."""
    top = None if body.logprob_token_ids else body.top_logprobs
    listed = {"content": [_token(position, top) for position in answer.positions]} if body.logprobs else None
    return {
        "id": "chatcmpl-editr1",
        "object": "chat.completion",
        "created": 0,
        "model": name,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": answer.text},
                "logprobs": listed,
                "finish_reason": "stop",
            }
        ],
        "usage": {
            "prompt_tokens": answer.prompt_tokens,
            "completion_tokens": answer.completion_tokens,
            "total_tokens": answer.prompt_tokens + answer.completion_tokens,
        },
    }


def _token(position: Position, top: int | None) -> dict[str, Any]:
    ranked = sorted(position.logprobs.items(), key=lambda entry: -entry[1])[:top]
    own = position.logprobs.get(position.token, -9999.0)
    listed = [{"token": token, "logprob": logprob, "bytes": None} for token, logprob in ranked]
    return {"token": position.token, "logprob": own, "bytes": None, "top_logprobs": listed}


def _error(status: int, message: str, kind: str, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"error": {"message": message, "type": kind, "code": status}}, status, headers)
