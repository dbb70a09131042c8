"""What clients of `editr1 judge serve` send: checked, and of limited size in bytes, memory and pixels.

Nothing is fetched: images come as data URLs. Pictures that are too large are refused by their headers.
"""

from __future__ import annotations

import base64
import io
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, TypeVar

from fastapi import Request
from PIL.Image import Image
from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator

from editr1.data.pictures import PIXELS_MAX, header_size, read_picture
from editr1.errors import UserError, first_problem

IMAGES_MAX = 8
KINDS = {
    "data:image/png;base64,": b"\x89PNG",
    "data:image/jpeg;base64,": b"\xff\xd8",
    "data:image/webp;base64,": b"RIFF",
}
"""Heads of data URLs, and the first bytes of the files in them."""
TEXT_MAX = 100_000  # characters of a question
PIECES_MAX = 100_000  # commas and brackets of a request: each may be an object of its own in memory
HELD_MAX = 2 * 2**30  # bytes of bodies and decoded pictures of all requests together

Body = TypeVar("Body", bound=BaseModel)


class Message(BaseModel):
    """Text, or texts and images in order."""

    role: Literal["user", "system"]
    content: str | list[dict[str, Any]]


class Chat(BaseModel):
    """A chat request; further keys are ignored, as clients send many."""

    model: str
    messages: list[Message] = Field(min_length=1, max_length=2)
    max_tokens: int | None = Field(default=None, ge=1, le=4096)
    max_completion_tokens: int | None = Field(default=None, ge=1, le=4096)
    temperature: float = Field(default=1.0, ge=0, le=2)
    seed: int = Field(default_factory=lambda: random.getrandbits(31))
    n: int = Field(default=1, ge=1, le=16)
    stream: Literal[False] = False
    logprobs: bool = False
    top_logprobs: int = Field(default=0, ge=0, le=20)
    logprob_token_ids: list[int] = Field(default=[], max_length=128)

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, body: Any) -> Any:
        """Clients send null for the settings that they leave to the server."""
        return {name: value for name, value in body.items() if value is not None} if isinstance(body, dict) else body

    @field_validator("messages")
    @classmethod
    def _one_question(cls, messages: list[Message]) -> list[Message]:
        if [message.role for message in messages] not in (["user"], ["system", "user"]):
            raise ValueError("give one message of the user, and none before it but one of the system")
        return messages

    @property
    def question(self) -> list[str | bytes]:
        """The texts and image files of the user's message."""
        return parts_of(self.messages[-1])

    @property
    def system(self) -> str:
        """The text of the system's message."""
        parts = parts_of(self.messages[0]) if len(self.messages) > 1 else []
        if any(isinstance(part, bytes) for part in parts):
            raise Refused(400, "the message of the system may hold text only")
        return "".join(str(part) for part in parts)


class Tokenize(BaseModel):
    """A request for the tokens of a text."""

    model: str
    prompt: str = Field(max_length=TEXT_MAX)
    add_special_tokens: bool = True


class Refused(Exception):
    """A request that is answered with an error."""

    def __init__(self, status: int, message: str, kind: str = "invalid_request_error") -> None:
        super().__init__(message)
        self.status, self.kind = status, kind


class Memory:
    """What the requests of a server hold together, in bytes."""

    def __init__(self, most: int) -> None:
        self.left = most

    @contextmanager
    def share(self) -> Iterator[Callable[[int], None]]:
        """Of one request, while it lasts: a function that takes so many bytes, or raises `Refused`."""
        held = 0

        def take(size: int) -> None:
            nonlocal held
            if size > self.left:
                raise Refused(429, "other requests hold all memory", "overloaded")
            self.left, held = self.left - size, held + size

        try:
            yield take
        finally:
            self.left += held


async def read_body(request: Request, kind: type[Body], take: Callable[[int], None]) -> Body:
    """The request's body; `take` is told of its bytes as they come."""
    content = bytearray()
    async for chunk in request.stream():
        take(len(chunk))
        content += chunk
    if sum(content.count(mark) for mark in b",[{") > PIECES_MAX:
        raise Refused(400, f"a request may have {PIECES_MAX} commas and brackets")
    try:
        return kind.model_validate_json(bytes(content))
    except ValidationError as error:
        raise Refused(400, first_problem(error)) from None


def parts_of(message: Message) -> list[str | bytes]:
    """The message's texts, and its image files, of an area that all may have together."""
    if isinstance(message.content, str):
        parts: list[str | bytes] = [message.content]
    elif sum(part.get("type") == "image_url" for part in message.content) > IMAGES_MAX:
        raise Refused(400, f"a message may hold {IMAGES_MAX} images")
    else:
        parts = [_part(part) for part in message.content]
    if sum(len(part) for part in parts if isinstance(part, str)) > TEXT_MAX:
        raise Refused(400, f"a message may hold {TEXT_MAX} characters")
    if sum(map(area, parts)) > PIXELS_MAX:
        raise Refused(400, f"the images of a message may have {PIXELS_MAX:,} pixels together")
    return parts


def _part(part: dict[str, Any]) -> str | bytes:
    if part.get("type") == "text" and isinstance(part.get("text"), str):
        return str(part["text"])
    if part.get("type") == "image_url" and isinstance(part.get("image_url"), dict):
        return image_file(str(part["image_url"].get("url")))
    raise Refused(400, "content holds parts of the types text and image_url only")


def image_file(url: str) -> bytes:
    """The image file in a data URL; of the three kinds, and no other."""
    head = next((head for head in KINDS if url.startswith(head)), None)
    if head is None:
        raise Refused(400, "an image must be a data URL of PNG, JPEG or WebP: nothing is fetched")
    try:
        content = base64.b64decode(url[len(head) :], validate=True)
    except ValueError as error:
        raise Refused(400, f"an image cannot be read: {error}") from error
    if not content.startswith(KINDS[head]):
        raise Refused(400, f"an image cannot be read: it is not what {head} says")
    return content


def area(part: str | bytes) -> int:
    """Pixels of an image by its header; 0 for a text."""
    if isinstance(part, str):
        return 0
    try:
        width, height = header_size(part, "an image cannot be read")
    except UserError as error:
        raise Refused(400, str(error)) from error
    return width * height


def picture(file: bytes) -> Image:
    """The picture in an image file."""
    try:
        return read_picture(io.BytesIO(file), "an image cannot be read")
    except UserError as error:
        raise Refused(400, str(error)) from error
