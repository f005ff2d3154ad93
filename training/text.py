"""The text side of the model: a word tokenizer over the world's vocabulary and a small CLIP text encoder."""

from __future__ import annotations

import random

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import CLIPTextConfig, CLIPTextModel, PreTrainedTokenizerFast

from training import scenes

PAD, UNKNOWN, BEGIN, END = "<pad>", "<unk>", "<s>", "</s>"
WORD = r"\w+(?:'\w+)*"
"""A word may contain apostrophes ("children's"); all other punctuation separates words and is ignored."""


def build_tokenizer() -> PreTrainedTokenizerFast:
    """One token per word, case ignored, with offsets; a word the world does not know becomes ``<unk>``."""
    words = sorted({word for group in scenes.vocabulary().values() for word in group})
    ids = {word: i for i, word in enumerate([PAD, UNKNOWN, BEGIN, END, *words])}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Replace("’", "'"), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(WORD), "removed", invert=True)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BEGIN} $A {END}", special_tokens=[(BEGIN, ids[BEGIN]), (END, ids[END])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=scenes.MAX_TOKENS,
        bos_token=BEGIN, eos_token=END, pad_token=PAD, unk_token=UNKNOWN,
    )  # fmt: skip


def build_text_encoder(tokenizer: PreTrainedTokenizerFast, width: int = 192, layers: int = 3) -> CLIPTextModel:
    """An untrained text encoder for the tokenizer's vocabulary: [B, 32] token ids to [B, 32, width] states."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=width,
            intermediate_size=3 * width,
            num_hidden_layers=layers,
            num_attention_heads=4,
            max_position_embeddings=scenes.MAX_TOKENS,
            hidden_act="gelu",
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


class Captioner:
    """Says scenes in words and turns the words into token ids, much faster than a general tokenizer would.

    Captions are drawn anew every time a scene is seen. Now and then an unknown word is put in, so that the model
    learns to look past words it does not know.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast, unknown_share: float = 0.06) -> None:
        self.ids = tokenizer.get_vocab()
        self.unknown_share = unknown_share
        self.empty = self.encode([])

    def encode(self, words: list[str]) -> list[int]:
        """Token ids of words, padded to the context length."""
        inner = [self.ids.get(word, self.ids[UNKNOWN]) for word in words[: scenes.MAX_TOKENS - 2]]
        ids = [self.ids[BEGIN], *inner, self.ids[END]]
        return ids + [self.ids[PAD]] * (scenes.MAX_TOKENS - len(ids))

    def __call__(self, scene: scenes.Scene, rng: random.Random) -> list[int]:
        """Token ids of a random caption of the scene."""
        words = scenes.caption(scene, rng).replace(",", "").split()
        if rng.random() < self.unknown_share:
            words.insert(rng.randint(0, len(words)), UNKNOWN)
        return self.encode(words)
