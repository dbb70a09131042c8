"""A model behind one or more servers that speak OpenAI's chat protocol: vLLM, SGLang, `editr1 judge serve`, hosted.

Images travel as data URLs. The log-probabilities of the choices are exact if a server gives those of named tokens
(vLLM's `logprob_token_ids`). Otherwise they are read from its list of the likeliest tokens, and a choice that is not in
the list stays unknown, with a bound. An answer becomes a number only if it is whole and finite.
"""

from __future__ import annotations

import asyncio
import io
import itertools
import logging
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any

from PIL.Image import Image

from editr1.config.rewards import JudgeConfig
from editr1.data.pictures import data_url
from editr1.errors import UserError
from editr1.judges.base import Answer, Ask, Position
from editr1.judges.models.client import Client
from editr1.judges.models.endpoints import Endpoint, Endpoints, GivenUp
from editr1.judges.models.wire import Fault, Wire, server_url, unusable

PLACEHOLDER = -9999.0  # what servers write for an unknown log-probability
ROUNDING = 1e-4  # a log-probability may be this far above 0
BROKEN_OFF = frozenset({"abort", "content_filter", "error"})
NO_SUCH_CALL = 501
LONGEST_TOKEN = 256  # characters
TOKENS_MAX = 10**7  # of a question or an answer: a number above it counts none
RUN_LENGTHS = 3  # zlib's quickest strategy that still makes flat areas small

_log = logging.getLogger(__name__)


class OpenAIModel:
    """Answers questions by chat servers; see `editr1.judges.base.MLLM`. `answer` may be called from several threads.

    Args:
        settings: Servers of one model, and how they are asked; a request is given up at an endpoint after `tries`.
        top_logprobs: Length of the list of likeliest tokens that a server is asked for.
        backoff: Seconds of the first pause after a failure.

    Raises:
        UserError: An endpoint is not a base URL, or the key cannot be sent.
    """

    remote = True

    def __init__(self, settings: JudgeConfig, *, top_logprobs: int = 20, backoff: float = 0.5) -> None:
        self.name, self.top_logprobs, self.jpeg_quality = settings.name, top_logprobs, settings.jpeg_quality
        urls = [_checked(url) for url in dict.fromkeys(settings.endpoints)]
        if not urls:
            raise UserError("judge.endpoints is empty: name at least one server, such as http://127.0.0.1:8000/v1")
        tries, key = settings.tries, _key(settings.api_key_env)
        servers = [Endpoint(Wire(url, settings.timeout, key)) for url in urls]
        self._endpoints = Endpoints(servers, in_flight=settings.in_flight, tries=tries, backoff=backoff)
        self._exact = {server: _TokenIds(server, self.name, tries) for server in servers}
        self._renamed: set[Endpoint] = set()  # these want `max_completion_tokens`, like OpenAI's newer models
        self._encoders = _encoders()
        self._client = Client(self._endpoints, "judge-client")

    def answer(self, asks: Sequence[Ask]) -> list[Answer]:
        """One answer per question, in their order; all questions are withdrawn if the wait is interrupted."""
        urls: dict[int, Future[str]] = {}
        return self._client.gather(self._answer(ask, [self._part(part, urls) for part in ask.parts]) for ask in asks)

    def close(self) -> None:
        """Withdraw all questions; threads that wait in `answer` get a CancelledError. It can be asked again."""
        self._client.close()
        old, self._encoders = self._encoders, _encoders()
        old.shutdown(wait=False, cancel_futures=True)

    async def _answer(self, ask: Ask, parts: list[str | Future[str]]) -> Answer:
        started = time.monotonic()
        content = [await _content(part) for part in parts]
        system = [{"role": "system", "content": ask.system}] if ask.system else []
        body = {
            "model": self.name,
            "messages": [*system, {"role": "user", "content": content}],
            "max_tokens": ask.max_tokens,
            "temperature": ask.temperature,
            "seed": ask.seed,
        }

        async def send(endpoint: Endpoint) -> Answer:
            return await self._ask(endpoint, ask, body)

        try:
            answer = await self._endpoints.call(send)
        except GivenUp as error:
            answer = Answer(reason=str(error))
        return replace(answer, seconds=time.monotonic() - started)

    async def _ask(self, endpoint: Endpoint, ask: Ask, body: dict[str, Any]) -> Answer:
        """An answer, with log-probabilities of the choices if a server can give them, else of its likeliest tokens."""

        def read(reply: Any, named: int = 0) -> Answer:
            return _read(reply, ask, endpoint.wire.clean, named)

        if not ask.choices:
            return await self._post(endpoint, body, read)
        body = {**body, "logprobs": True, "top_logprobs": self.top_logprobs}
        exact = self._exact[endpoint]
        ids = await exact.of(ask)
        if ids is None:
            return await self._post(endpoint, body, read)
        enough = max(self.top_logprobs, len(ids) + 1)  # the list holds the answer's own token too
        named = {**body, "logprob_token_ids": ids, "top_logprobs": enough}
        try:
            answer = await self._post(endpoint, named, partial(read, named=len(ids)))
        except Fault as fault:
            if fault.status not in (400, 422):
                raise
            answer = await self._post(endpoint, body, read)  # raises if the parameter was not the problem
            exact.give_up(f"refuses logprob_token_ids ({fault})")
            return answer
        if all(position.floor == -math.inf for position in answer.positions):
            return answer
        exact.give_up("does not know logprob_token_ids")
        return await self._post(endpoint, body, read)

    async def _post(self, endpoint: Endpoint, body: dict[str, Any], read: Callable[[Any], Answer]) -> Answer:
        """What `read` makes of a chat completion."""
        url = f"{endpoint.url}/chat/completions"
        if endpoint not in self._renamed:
            try:
                return await endpoint.wire.post(url, body, read)
            except Fault as fault:
                if fault.status != 400 or "max_completion_tokens" not in fault.detail:
                    raise
            self._renamed.add(endpoint)
        renamed = {"max_completion_tokens" if name == "max_tokens" else name: value for name, value in body.items()}
        return await endpoint.wire.post(url, renamed, read)

    def _part(self, part: str | Image, urls: dict[int, Future[str]]) -> str | Future[str]:
        """One piece of the message; an image is encoded in a thread, once however often it occurs."""
        if isinstance(part, str):
            return part
        if id(part) not in urls:
            urls[id(part)] = self._encoders.submit(picture_url, part, self.jpeg_quality)
        return urls[id(part)]


class _TokenIds:
    """The token ids of choices at one endpoint, if it gives the log-probabilities of named tokens."""

    def __init__(self, endpoint: Endpoint, model: str, tries: int) -> None:
        self.endpoint, self.model = endpoint, model
        self.left = tries  # strange answers to the question for ids until the endpoint counts as unable
        self.ids: dict[str, int | None] = {}
        self._learning: dict[tuple[str, ...], asyncio.Task[None]] = {}
        self._able = True

    async def of(self, ask: Ask) -> list[int] | None:
        """Ids of the choices of a question; None if the endpoint has no such call, or a choice is not one token.

        Raises:
            Fault: The endpoint does not answer, but may do so later.
        """
        spellings = [ask.spellings(choice) for choice in ask.choices]
        texts = tuple(text for some in spellings for text in some)
        if self._able and any(text not in self.ids for text in texts):
            if (task := self._learning.get(texts)) is None or task.done():  # one question, however many wait for it
                self._learning[texts] = asyncio.create_task(self._learn(texts, warn=not ask.any_spelling))
            await asyncio.shield(self._learning[texts])
        ids = [[token for text in some if (token := self.ids.get(text)) is not None] for some in spellings]
        return list(dict.fromkeys(itertools.chain(*ids))) if self._able and all(ids) else None

    def give_up(self, why: str) -> None:
        """Read the choices from the list of likeliest tokens from now on."""
        if self._able:
            self._able = False
            _log.warning("%s %s: scores are read from its list of likeliest tokens", self.endpoint.host, why)

    async def _learn(self, texts: tuple[str, ...], warn: bool) -> None:
        try:
            for text in texts:
                if text not in self.ids and self._able:
                    await self._learn_one(text, warn)
        finally:
            self._learning.pop(texts, None)

    async def _learn_one(self, text: str, warn: bool) -> None:
        url = self.endpoint.url.removesuffix("/v1") + "/tokenize"
        try:
            body = {"model": self.model, "prompt": text, "add_special_tokens": False}
            tokens = await self.endpoint.wire.post(url, body, _tokens)
        except Fault as fault:
            self.left -= fault.garbled or fault.status == 500
            if not (fault.lasting or fault.status == NO_SUCH_CALL or self.left <= 0):
                raise
            self.give_up(f"tells no token ids ({fault})")
            return
        self.ids[text] = tokens[0] if len(tokens) == 1 else None
        if len(tokens) != 1 and warn:
            words = "%s writes %r as %d tokens: it is looked up in the list"
            _log.warning(words, self.endpoint.host, text, len(tokens))


def _encoders() -> ThreadPoolExecutor:
    """Threads that encode pictures; they start when they are needed."""
    return ThreadPoolExecutor(os.cpu_count(), "judge-images")


async def _content(part: str | Future[str]) -> dict[str, Any]:
    """A piece of the message in the form of the protocol."""
    if isinstance(part, str):
        return {"type": "text", "text": part}
    return {"type": "image_url", "image_url": {"url": await asyncio.shield(asyncio.wrap_future(part))}}


def _tokens(reply: Any) -> list[int]:
    """The token ids in an answer to the question for them."""
    tokens = reply.get("tokens") if isinstance(reply, dict) else None
    if not isinstance(tokens, list) or not all(type(token) is int and 0 <= token < 2**31 for token in tokens):
        raise unusable("no list of tokens")
    return tokens


def _read(reply: Any, ask: Ask, clean: Callable[[str], str], named: int) -> Answer:
    """A chat completion as an answer; a `Fault` if it is not whole, or holds log-probabilities that cannot be.

    `named` is the number of tokens whose log-probabilities the server was asked for; 0 for its likeliest tokens.
    """
    try:
        choice = reply["choices"][0]
        text = choice["message"]["content"]
    except (KeyError, IndexError, TypeError):
        raise unusable("no choices with a message") from None
    if not isinstance(text, str):
        raise unusable("no content")
    if len(text) > LONGEST_TOKEN * ask.max_tokens:
        raise unusable(f"{len(text)} characters are more than {ask.max_tokens} tokens can be")
    if (end := str(choice.get("finish_reason"))) in BROKEN_OFF:
        raise unusable(f"broken off: {end}")
    usage = reply.get("usage")
    return Answer(
        clean(text),
        _positions(choice.get("logprobs"), ask, text, named) if ask.choices else (),
        prompt_tokens=_count(usage, "prompt_tokens"),
        cached_tokens=_count(usage, "prompt_tokens_details", "cached_tokens"),
        completion_tokens=_count(usage, "completion_tokens"),
    )


def _positions(logprobs: Any, ask: Ask, text: str, named: int) -> tuple[Position, ...]:
    tokens = logprobs.get("content") if isinstance(logprobs, dict) else None
    if not isinstance(tokens, list) or not tokens:
        raise unusable("no logprobs")
    if len(tokens) > ask.max_tokens:
        raise unusable(f"logprobs of {len(tokens)} tokens, asked for were {ask.max_tokens}")
    positions = tuple(_position(token, ask, named) for token in tokens)
    tokens_text = "".join(position.token for position in positions)
    if len("".join(tokens_text.split())) < len("".join(text.split())):
        raise unusable(f"logprobs of {len(positions)} tokens only, the text is longer")
    return positions


def _position(token: Any, ask: Ask, named: int) -> Position:
    """One token of a reply; of a choice with several spellings, the sum of those that are listed.

    The least likely token of its list bounds the choices and spellings that the list leaves out.
    The answer's own token is no bound: servers list it even if it is far down.
    """
    try:
        listed = [(str(entry["token"]), _logprob(entry["logprob"])) for entry in token["top_logprobs"]]
        own = str(token["token"])
        if all(name != own for name, _ in listed) and token["logprob"] != PLACEHOLDER:
            listed.append((own, _logprob(token["logprob"])))
    except (KeyError, TypeError):
        raise unusable("logprobs are missing") from None
    if not token["top_logprobs"]:
        raise unusable("the list of the likeliest tokens is empty")
    values: dict[str, list[float]] = {}
    for name, value in dict.fromkeys(listed):
        values.setdefault(name, []).append(value)
    spellings = {choice: ask.spellings(choice) for choice in ask.choices}
    found = {choice: [value for name in some for value in values.get(name, ())] for choice, some in spellings.items()}
    total = _log_sum if ask.any_spelling else max
    logprobs = {choice: total(values) for choice, values in found.items() if values}
    if len(logprobs) == len(found) and (not ask.any_spelling or 0 < named <= sum(map(len, found.values()))):
        return Position(own, logprobs)
    floor = min((value for name, value in listed if name != own), default=0.0)
    unlisted = {choice: max(0, len(some) - len(found[choice])) for choice, some in spellings.items()}
    return Position(own, logprobs, floor, unlisted if ask.any_spelling else {})


def _log_sum(logprobs: Sequence[float]) -> float:
    """Log of the sum of probabilities."""
    top = max(logprobs)
    return top + math.log(math.fsum(math.exp(value - top) for value in logprobs))


def _logprob(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise unusable(f"a log-probability is {value!r}")
    if not PLACEHOLDER < value <= ROUNDING:  # nor is NaN
        raise unusable(f"a log-probability is {value}")
    return min(float(value), 0.0)


def _count(usage: Any, *keys: str) -> int:
    """A number of tokens in a server's reply; 0 if it is not there."""
    for key in keys:
        usage = usage.get(key) if isinstance(usage, Mapping) else None
    return usage if type(usage) is int and 0 <= usage <= TOKENS_MAX else 0


def picture_url(image: Image, jpeg_quality: int | None) -> str:
    """A picture as a data URL, of JPEG or of quickly written PNG."""
    file = io.BytesIO()
    if jpeg_quality is None:
        image.convert("RGB").save(file, "PNG", compress_level=1, compress_type=RUN_LENGTHS)
    else:
        image.convert("RGB").save(file, "JPEG", quality=jpeg_quality)
    return data_url(file.getvalue(), "png" if jpeg_quality is None else "jpeg")


def _checked(url: str) -> str:
    """A base URL without its last slash."""
    if "@" in url:
        raise UserError(
            f"judge.endpoints: the URL that ends in {url.rsplit('@', 1)[1]!r} holds credentials: "
            "put the key into the environment instead"
        )
    complaint = f"judge.endpoints: {url!r} is not a server's base URL, such as http://127.0.0.1:8000/v1"
    parsed = server_url(url, complaint)
    if parsed.query or parsed.fragment:
        raise UserError(complaint)
    return url.rstrip("/")


def _key(api_key_env: str) -> str:
    """The key in an environment variable; nothing if it is not set."""
    key = os.environ.get(api_key_env, "").strip()
    if not (key.isascii() and key.isprintable()):
        raise UserError(f"the key in the environment variable {api_key_env} holds characters that cannot be sent")
    return key
