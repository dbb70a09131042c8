"""A reward from an HTTP service of the user's."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import httpx

from editr1.config.rewards import JUDGE_DEFAULTS
from editr1.data.pictures import png_data_url
from editr1.errors import UserError
from editr1.judges.base import JudgeRequest, Score
from editr1.judges.models.client import Client
from editr1.judges.models.endpoints import Endpoint, Endpoints, GivenUp
from editr1.judges.models.wire import NOT_FOR_ALL, Fault, Reply, Wire, server_url
from editr1.judges.rewards.function import as_score

AGAIN = NOT_FOR_ALL | {500, 502, 503, 504}


class HttpReward:
    """POSTs {"instruction", "requirement", "task", "source", "edit"}, images as PNG data URLs, for {"score", "reason"}.

    A sample with references has them too, as the list "references". "score" is a number in [0, 1], or null, with a
    "reason" if it likes, for an item that the reward does not apply to. A request that fails is tried again with
    growing pauses; if all tries fail, the edit has no score.

    Args:
        url: Address of the service, without user and password.
        tries: Attempts per edit.
        backoff: Seconds of the first pause; each further pause is twice as long.
        timeout: Seconds per attempt.
    """

    remote = True

    def __init__(
        self, url: str, *, tries: int = 4, backoff: float = 0.5, timeout: float = JUDGE_DEFAULTS.timeout
    ) -> None:
        shown = repr(url.rpartition("@")[2])
        complaint = f"reward service: {shown} needs a URL such as http://127.0.0.1:9000/score, without user or password"
        parsed = server_url(url, complaint)
        if parsed.userinfo:
            raise UserError(complaint)
        self.url, self.where = url, f"{parsed.host}:{parsed.port or ''}"
        self._wire = Wire(url, timeout)
        self._endpoints = Endpoints(
            [Endpoint(self._wire)], in_flight=JUDGE_DEFAULTS.in_flight, tries=tries, backoff=backoff
        )
        self._client = Client(self._endpoints, "reward-client")

    def score(self, requests: Sequence[JudgeRequest]) -> list[Score]:
        """One score per request, in their order; all are asked for at once."""
        return self._client.gather(self._score(request) for request in requests)

    def close(self) -> None:
        """Withdraw all requests; it can be asked again."""
        self._client.close()

    async def _score(self, request: JudgeRequest) -> Score:
        body = await asyncio.to_thread(_body, request)

        async def send(service: Endpoint) -> Score:
            return await service.wire.ask(self.url, body, self._read)

        try:
            return await self._endpoints.call(send)
        except GivenUp as error:
            problem = error.fault.what if error.fault.status else error.fault.detail.partition(", ")[0]
            return Score(None, f"{self.where}: {problem} after {error.tries} tries")

    def _read(self, reply: Reply) -> Score:
        if reply.status in AGAIN:
            raise reply.refusal()
        if reply.status != httpx.codes.OK:
            return Score(None, f"{self.where}: HTTP {reply.status}")
        try:
            answer = reply.parsed()
        except Fault:
            return Score(None, f"{self.where}: the answer is not JSON")
        if not isinstance(answer, dict) or "score" not in answer:
            return Score(None, f'{self.where}: the answer has no "score"')
        if answer["score"] is None and answer.get("reason"):
            return Score(None, f"{self.where}: {self._wire.line(str(answer['reason']))[:120]}", applies=False)
        return as_score(answer["score"], self.where)


def _body(request: JudgeRequest) -> dict[str, Any]:
    sample = request.sample
    references = {"references": [png_data_url(image) for image in sample.references]} if sample.references else {}
    return {
        "instruction": sample.instruction,
        "requirement": sample.requirement,
        "task": sample.task,
        "source": png_data_url(sample.source),
        "edit": png_data_url(request.edit),
        **references,
    }
