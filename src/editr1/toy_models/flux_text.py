"""The toy's CLIP and T5: tokenizers that know the toy's words, and small untrained text encoders."""

from __future__ import annotations

import json

from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer, T5Config, T5EncoderModel, T5Tokenizer

from editr1.toy_models.language import load_tokenizer

TEXT_TOKENS = 32  # the longest instruction has 25


def words() -> list[str]:
    """Every word of the toy's language, as the frozen tokenizer has them."""
    tokens = {token.removeprefix("Ġ") for token in load_tokenizer().get_vocab()}
    return sorted(token for token in tokens if token.isascii() and token.isalpha())


def make_clip_tokenizer() -> CLIPTokenizer:
    """Lower-case byte-level BPE, trained until each word is one token."""
    bpe = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Whitespace(), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    last = [f"{character}</w>" for character in map(chr, range(33, 127))]  # named, or their order would be by chance
    trainer = trainers.BpeTrainer(
        vocab_size=8192, end_of_word_suffix="</w>", special_tokens=last, show_progress=False, min_frequency=1
    )
    bpe.train_from_iterator([" ".join(word.lower() for word in words()), "a . , ; :"], trainer)
    trained = json.loads(bpe.to_str())["model"]
    vocab = {token: i for i, token in enumerate([*trained["vocab"], "<|startoftext|>", "<|endoftext|>"])}
    merges = [tuple(merge) for merge in trained["merges"]]
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=TEXT_TOKENS)


def make_t5_tokenizer() -> T5Tokenizer:
    """Unigram pieces: a piece for each word, and single characters for what is no word."""
    characters = [chr(code) for code in range(33, 127)]
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    pieces += [("▁" + word, -1.0) for word in words()] + [(character, -8.0) for character in characters]
    return T5Tokenizer(vocab=pieces, extra_ids=0, model_max_length=TEXT_TOKENS)


def init_clip(tokenizer: CLIPTokenizer, width: int) -> CLIPTextModel:
    """The encoder whose pooled state modulates every block."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=width,
            intermediate_size=2 * width,
            num_hidden_layers=1,
            num_attention_heads=width // 32,
            max_position_embeddings=TEXT_TOKENS,
            projection_dim=width,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def init_t5(tokenizer: T5Tokenizer, width: int, layers: int) -> T5EncoderModel:
    """The encoder whose states are the denoiser's text tokens."""
    return T5EncoderModel(
        T5Config(
            vocab_size=len(tokenizer),
            d_model=width,
            d_kv=32,
            d_ff=2 * width,
            num_layers=layers,
            num_heads=width // 32,
            feed_forward_proj="gated-gelu",
            dropout_rate=0.0,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    )
