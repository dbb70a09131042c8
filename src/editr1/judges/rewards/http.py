"""A reward from a HTTP service of the user's."""

from __future__ import annotations

import base64
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
from PIL.Image import Image

from editr1.data.pictures import png
from editr1.errors import UserError
from editr1.judges.base import JudgeRequest, Score
from editr1.judges.rewards.function import as_score

AGAIN = {408, 409, 425, 429, 500, 502, 503, 504}


class HttpReward:
    """POSTs {"instruction", "requirement", "task", "source", "edit"}, images as PNG data URLs, for {"score", "reason"}.

    "score" is a number in [0, 1], or null with a "reason". What fails is tried again with growing pauses, then it is a
    reason.

    Args:
        url: of the service.
        timeout: seconds for one answer.
        in_flight: requests under way at once.
        tries: how often one is sent.
        pause: seconds before the second try; doubled each time.

    Raises:
        UserError: the URL is none, or holds a password.
    """

    remote = True

    def __init__(
        self, url: str, *, timeout: float = 60.0, in_flight: int = 16, tries: int = 4, pause: float = 0.5
    ) -> None:
        parsed = httpx.URL(url)
        if parsed.scheme not in ("http", "https") or not parsed.host or parsed.userinfo:
            raise UserError(f"reward service: {parsed.host or url!r} needs a URL such as http://127.0.0.1:9000/score, "
                            "without user or password")  # fmt: skip
        self.url, self.where = url, f"{parsed.host}:{parsed.port or ''}"
        self.timeout, self.in_flight, self.tries, self.pause = timeout, in_flight, tries, pause

    def score(self, requests: Sequence[JudgeRequest]) -> list[Score]:
        """One score a request, asked side by side."""
        with httpx.Client(timeout=self.timeout) as client, ThreadPoolExecutor(self.in_flight) as pool:
            return list(pool.map(lambda request: self._ask(client, request), requests))

    def _ask(self, client: httpx.Client, request: JudgeRequest) -> Score:
        body = {
            "instruction": request.sample.instruction,
            "requirement": request.sample.requirement,
            "task": request.sample.task,
            "source": data_url(request.sample.source),
            "edit": data_url(request.edit),
        }
        reason = ""
        for attempt in range(self.tries):
            if attempt:
                time.sleep(self.pause * 2 ** (attempt - 1))
            try:
                response = client.post(self.url, json=body)
            except httpx.HTTPError as error:
                reason = type(error).__name__
                continue
            if response.status_code in AGAIN:
                reason = f"HTTP {response.status_code}"
                continue
            return self._read(response)
        return Score(None, f"{self.where}: {reason} after {self.tries} tries")

    def _read(self, response: httpx.Response) -> Score:
        if response.status_code != httpx.codes.OK:
            return Score(None, f"{self.where}: HTTP {response.status_code}")
        try:
            answer: Any = response.json()
        except ValueError:
            return Score(None, f"{self.where}: the answer is not JSON")
        if not isinstance(answer, dict) or "score" not in answer:
            return Score(None, f'{self.where}: the answer has no "score"')
        if answer["score"] is None and answer.get("reason"):
            return Score(None, f"{self.where}: {str(answer['reason'])[:120]}")
        return as_score(answer["score"], self.where)


def data_url(image: Image) -> str:
    """The image as a PNG data URL."""
    return "data:image/png;base64," + base64.b64encode(png(image.convert("RGB"))).decode()
