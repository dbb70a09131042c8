"""The code of a model card that makes an edit: what `editr1 edit` passes to a pipeline, written out for its users.

The family's record is asked with expressions in place of pictures and sizes, so that card and record cannot differ.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from PIL import Image as Images

from editr1.data.samples import EditSample
from editr1.editors.family import Family, for_inference

INSTRUCTION = "remove the red ball"
STEPS = 28
UNKNOWN = Family(name="unknown", pipeline="", multiple=32, text_tokens=None, batch_args=(), lora_targets=())
"""Stands for a pipeline without a record, which is called with a source, an instruction and a size."""


@dataclass(frozen=True)
class Code:
    """An expression. What is computed with it is an expression again, and so is its text in a list or a dict."""

    text: str

    def __repr__(self) -> str:
        return self.text

    def __mul__(self, other: object) -> Code:
        return Code(f"{self} * {other}")

    def __rmul__(self, other: object) -> Code:
        return self if other == 1 else Code(f"{other} * {self}")

    def __pow__(self, other: object) -> Code:
        return Code(f"({self}) ** {other}")

    def __truediv__(self, other: object) -> Code:
        return Code(f"{self} / {other}")

    def __round__(self) -> Code:
        return Code(f"round({self})")


SOURCE, SIZE = Code("source"), (Code("width"), Code("height"))


@dataclass(frozen=True)
class Call:
    """How the code in the card calls the pipeline.

    Attributes:
        family: Record of the pipeline.
        guidance: Guidance scale; None if it takes none.
        pixels: Area of the edit; None for the pipeline's own.
        text_tokens: Length to which prompts are padded or cut; None for the pipeline's own.
    """

    family: Family
    guidance: float | None = None
    pixels: int | None = None
    text_tokens: int | None = None

    def imports(self) -> list[str]:
        """Lines that import what `lines` need."""
        lines = list(self.lines())
        needs = {
            "import sys": "sys.",
            "from diffusers.utils import load_image": "load_image(",
            "from PIL.Image import Resampling": "Resampling.",
        }
        return [line for line, word in needs.items() if any(word in code for code in lines)]

    def lines(self) -> Iterator[str]:
        """Lines from the source to the edit."""
        yield from self._size()
        yield from self._areas()
        arguments = ", ".join(f"{name}={value!r}" for name, value in self._arguments().items())
        yield f"edit = pipe({arguments}, num_inference_steps={STEPS})[0][0]"

    def _size(self) -> Iterator[str]:
        """The source, and width and height of its edit."""
        family, pixels, side = self.family, self.pixels, self.family.multiple
        if family.image is None:
            if pixels is not None:
                yield f"width = height = {max(1, round(pixels**0.5 / side)) * side}"
            return
        yield 'source = load_image("source.png")'
        if pixels is not None:
            yield f"scale = ({pixels} / (source.width * source.height)) ** 0.5  # the area that it was trained at"
            yield f"width, height = (max(1, round(scale * side / {side})) * {side} for side in source.size)"
            if family.fitted:
                yield "source = source.resize((width, height), Resampling.LANCZOS)"
        elif family.source_shape:
            yield "width, height = source.size  # the pipeline scales them to its own area"

    def _areas(self) -> Iterator[str]:
        """Assignments to what the pipeline takes from its module and not from its arguments: the source's area."""
        family, pixels = self.family, self.pixels
        if pixels is None:
            return
        if family.source_areas or family.preview_areas or family.area_functions:
            yield "module = sys.modules[type(pipe).__module__]  # the source is encoded at the area of the edit"
        for name in family.source_areas:
            yield f"module.{name} = {pixels}"
        for name in family.preview_areas:
            yield f"module.{name} = min({pixels}, module.{name})"
        for name in family.area_functions:
            yield f"stock = module.{name}"
            yield f"module.{name} = lambda area, ratio: stock({pixels}, ratio)"
        size: Any = SIZE
        for name, value in (family.scoped(size) if family.scoped else {}).items():
            place, _, attribute = name.rpartition(":")
            yield f"{f'sys.modules[{place!r}]' if place else 'pipe'}.{attribute} = {value!r}"

    def _arguments(self) -> dict[str, Any]:
        """The pipeline's arguments, in the order of its record."""
        family, size = for_inference(self.family), None if self.pixels is None else SIZE
        sample = EditSample("card", Images.new("RGB", (1, 1)), INSTRUCTION)
        sources: list[Any] = [] if family.image is None else [SOURCE]
        call: Any = family.call  # with expressions instead of numbers
        arguments = call(sample, sources, 1, size=size, guidance=self.guidance, text_tokens=self.text_tokens)
        if size is None and family.source_shape:
            arguments |= dict(zip(("width", "height"), SIZE, strict=True))
        arguments.pop("num_images_per_prompt", None)
        return dict(arguments)
