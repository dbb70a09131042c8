"""Pipelines without weights: of the editors whose sizes are shipped (`sizes/`), and of any diffusers folder.

A file of sizes names the pipeline, and per part its class and what its config holds of sizes; "hub" are the names under
which the weights are published, "tiny" are the same models small enough for a test, and "like" names a file that it
changes. Tokenizers are the toy's: only their numbers of tokens matter.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import diffusers
import transformers
from accelerate import init_empty_weights
from diffusers import DiffusionPipeline
from torch import nn
from transformers import CLIPTokenizer, Qwen2Tokenizer, Qwen2VLImageProcessor, Qwen2VLProcessor, Qwen2VLVideoProcessor

from editr1.editors.index import read_index
from editr1.editors.one_frame import skip_absent_frames
from editr1.editors.open import denoiser_name, pipeline_class
from editr1.errors import UserError
from editr1.toy_models.flux_text import make_clip_tokenizer, make_t5_tokenizer
from editr1.toy_models.language import load_tokenizer

Sizes = dict[str, Any]
SHIPPED = Path(__file__).parent / "sizes"
EDITORS = tuple(sorted(file.stem for file in SHIPPED.glob("*.json")))
BLOCKS = ("num_layers", "num_single_layers")
"""Settings of a denoiser that say how many blocks of a kind it has."""
CLIP_TOKENS, T5_TOKENS = 77, 512
LEAST_PIXELS, MOST_PIXELS = 56 * 56, 3584 * 3584  # of Qwen2.5-VL's processor
CHAT = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if not enable_thinking %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)


@cache
def read_sizes(name: str, tiny: bool = False) -> tuple[str, dict[str, Sizes]]:
    """The pipeline's class and the sizes of its parts."""
    tree = _tree(name)
    if "like" in tree:
        tree = overlaid(_tree(tree["like"]), tree)
    return tree["pipeline"], overlaid(tree["parts"], tree["tiny"]) if tiny else tree["parts"]


def _tree(name: str) -> Sizes:
    tree: Sizes = json.loads((SHIPPED / f"{name}.json").read_text(encoding="utf-8"))
    return tree


@cache
def shipped() -> dict[str, str]:
    """The file of sizes of each published name."""
    return {hub: name for name in EDITORS for hub in _tree(name)["hub"]}


def overlaid(base: Sizes, other: Sizes) -> Sizes:
    """`base` with the values of `other`, at any depth."""
    both = {key: overlaid(base[key], other[key]) for key in base.keys() & other.keys() if isinstance(base[key], dict)}
    return {**base, **other, **both}


@dataclass(frozen=True)
class Blueprint:
    """All of a pipeline but its weights.

    Attributes:
        kind: Class of the pipeline.
        denoiser: Name of the denoiser among its components.
        model: Class of the denoiser.
        settings: The denoiser's config.
        components: Makes the other components; parameters of models are on the meta device.
    """

    kind: type[DiffusionPipeline]
    denoiser: str
    model: Any
    settings: Sizes
    components: Callable[[], dict[str, Any]]

    @property
    def blocks(self) -> dict[str, int]:
        """How many blocks of each kind the denoiser has, by the setting that says it."""
        return {key: self.settings[key] for key in BLOCKS if self.settings.get(key)}

    def build_denoiser(self, blocks: Mapping[str, int]) -> nn.Module:
        """The denoiser with another number of blocks, its parameters on the meta device."""
        with init_empty_weights():
            model: nn.Module = self.model.from_config({**self.settings, **blocks})
        return model.eval()

    def build(self, components: Mapping[str, Any], denoiser: nn.Module) -> DiffusionPipeline:
        """The pipeline of these components."""
        settings = {"is_distilled": False} if self.kind.__name__ == "Flux2KleinPipeline" else {}
        pipe: DiffusionPipeline = self.kind(**components, **{self.denoiser: denoiser}, **settings)
        skip_absent_frames(components.get("vae"))
        return pipe


def blueprint_of(path: str | Path) -> Blueprint:
    """The blueprint of an editor: of a name on the hub whose sizes are shipped, or of a folder.

    Raises:
        UserError: The sizes are not known, or the folder holds no flow-matching pipeline.
    """
    if (name := shipped().get(str(path))) is not None:
        kind, parts = read_sizes(name)
        sizes = parts["transformer"]
        others = {part: each for part, each in parts.items() if part != "transformer"}
        model, settings = getattr(diffusers, sizes["class"]), without_class(sizes)
        return Blueprint(getattr(diffusers, kind), "transformer", model, settings, partial(_from_sizes, kind, others))
    if not Path(path).is_dir():
        raise UserError(
            f"editor.path={str(path)!r}: its sizes are not shipped; give the folder of its pipeline (its "
            f"configs are enough), or one of {', '.join(sorted(shipped()))}"
        )
    pipeline, index = pipeline_class(path), read_index(path)
    denoiser = denoiser_name(index)
    if denoiser is None:
        raise UserError(f"editor.path={str(path)!r} has no denoiser that editr1 knows, so there is nothing to plan")
    model = getattr(diffusers, index[denoiser][1])
    entries = {name: value for name, value in index.items() if isinstance(value, list) and name != denoiser}
    settings = model.load_config(path, subfolder=denoiser)
    return Blueprint(pipeline, denoiser, model, settings, partial(_from_folder, Path(path), entries))


def _from_sizes(kind: str, parts: Mapping[str, Sizes]) -> dict[str, Any]:
    words = build_tokenizers(kind)
    built = {
        part: diffusers.FlowMatchEulerDiscreteScheduler.from_config(without_class(sizes))
        if part == "scheduler"
        else build_model(sizes, ids_of(sizes["class"], words))
        for part, sizes in parts.items()
    }
    return {**built, **words}


def _from_folder(folder: Path, entries: Mapping[str, Any]) -> dict[str, Any]:
    return {name: None if entry[1] is None else _component(folder, name, *entry) for name, entry in entries.items()}


def _component(folder: Path, name: str, library: str, kind: str) -> Any:
    """A component by its config; models without weights, tokenizers and the like whole."""
    made = getattr(diffusers if library == "diffusers" else transformers, kind)
    with init_empty_weights():
        if issubclass(made, diffusers.ModelMixin):
            return made.from_config(made.load_config(folder, subfolder=name)).eval()
        if issubclass(made, transformers.PreTrainedModel):
            return made(made.config_class.from_pretrained(folder / name)).eval()
    return made.from_pretrained(folder, subfolder=name)


def build_model(sizes: Sizes, ids: Sizes) -> nn.Module:
    """A model whose parameters are on the meta device."""
    with init_empty_weights():
        if hasattr(diffusers, sizes["class"]):
            model: nn.Module = getattr(diffusers, sizes["class"])(**without_class(sizes))
        else:
            kind = getattr(transformers, sizes["class"])
            model = kind(kind.config_class(**without_class(sizes), **ids))
    return model.eval()


def without_class(sizes: Sizes) -> Sizes:
    """The arguments of a model's config."""
    return {key: value for key, value in sizes.items() if key != "class"}


def build_tokenizers(pipeline: str) -> dict[str, Any]:
    """Tokenizers, and the processor of pictures, as the pipeline names them."""
    if pipeline == "FluxKontextPipeline":
        clip, t5 = make_clip_tokenizer(), make_t5_tokenizer()
        clip.model_max_length, t5.model_max_length = CLIP_TOKENS, T5_TOKENS
        return {"tokenizer": clip, "tokenizer_2": t5}
    tokenizer = load_tokenizer()
    if pipeline == "Flux2KleinPipeline":
        tokenizer.chat_template = CHAT
        return {"tokenizer": tokenizer}
    pictures = Qwen2VLImageProcessor(patch_size=14, min_pixels=LEAST_PIXELS, max_pixels=MOST_PIXELS)
    name = "text_processor" if pipeline == "LongCatImageEditPipeline" else "processor"
    return {"tokenizer": tokenizer, name: Qwen2VLProcessor(pictures, tokenizer, Qwen2VLVideoProcessor())}


def ids_of(kind: str, words: dict[str, Any]) -> Sizes:
    """The token ids that a text encoder's config names, as its tokenizer has them."""
    tokenizer = words["tokenizer"]
    if kind == "CLIPTextModel":
        assert isinstance(tokenizer, CLIPTokenizer)
        return {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    if kind == "Qwen2_5_VLForConditionalGeneration":
        assert isinstance(tokenizer, Qwen2Tokenizer)
        names = {"vision_start": "vision_start", "vision_end": "vision_end", "image": "image_pad", "video": "video_pad"}
        return {f"{name}_token_id": tokenizer.convert_tokens_to_ids(f"<|{pad}|>") for name, pad in names.items()}
    return {}
