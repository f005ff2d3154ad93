"""The tokenizer: one token per word with offsets, punctuation ignored, unknown words marked."""

from __future__ import annotations

import random

import pytest
from transformers import PreTrainedTokenizerFast

from training import scenes, text


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return text.build_tokenizer()


def _words(tokenizer: PreTrainedTokenizerFast, prompt: str) -> list[str]:
    return tokenizer.convert_ids_to_tokens(tokenizer(prompt).input_ids)[1:-1]


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ("a cat, on the grass!", ["a", "cat", "on", "the", "grass"]),
        ("A CAT  on\tthe grass", ["a", "cat", "on", "the", "grass"]),
        ("a children's drawing of a cat", ["a", "children's", "drawing", "of", "a", "cat"]),
        ("a children’s-drawing", ["a", "children's", "drawing"]),
        ("a wombat (riding) a bicycle.", ["a", text.UNKNOWN, "riding", "a", "bicycle"]),
        ("", []),
        ("!?,", []),
    ],
)
def test_words(tokenizer, prompt: str, words: list[str]):
    assert _words(tokenizer, prompt) == words


def test_offsets_lead_back_to_the_words(tokenizer):
    rng = random.Random(0)
    for _ in range(200):
        caption = scenes.caption(scenes.sample(rng), rng)
        encoded = tokenizer(caption, return_offsets_mapping=True)
        spans = [caption[a:b] for a, b in encoded["offset_mapping"][1:-1]]
        assert spans == caption.replace(",", "").split()
        assert tokenizer.unk_token_id not in encoded.input_ids


def test_long_prompts_are_cut_to_the_context(tokenizer):
    ids = tokenizer("cat " * 100, truncation=True, padding="max_length").input_ids
    assert len(ids) == scenes.MAX_TOKENS
    assert ids[-1] == tokenizer.eos_token_id


def test_the_fast_path_agrees_with_the_tokenizer(tokenizer):
    captioner = text.Captioner(tokenizer, unknown_share=0.0)
    for seed in range(200):
        scene = scenes.sample(random.Random(seed))
        ids = captioner(scene, random.Random(seed))
        caption = scenes.caption(scene, random.Random(seed))
        assert ids == tokenizer(caption, padding="max_length", truncation=True).input_ids
    assert captioner.empty == tokenizer("", padding="max_length").input_ids


def test_unknown_words_are_practised_without_losing_the_end(tokenizer):
    captioner = text.Captioner(tokenizer, unknown_share=1.0)
    for seed in range(100):
        ids = captioner(scenes.sample(random.Random(seed)), random.Random(seed))
        assert len(ids) == scenes.MAX_TOKENS
        assert ids.count(tokenizer.unk_token_id) <= 1
        assert tokenizer.eos_token_id in ids


def test_saved_tokenizer_is_the_same(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    again = PreTrainedTokenizerFast.from_pretrained(tmp_path)
    assert again.get_vocab() == tokenizer.get_vocab()
    assert again.model_max_length == scenes.MAX_TOKENS
    assert again("a cat, on the grass!").input_ids == tokenizer("a cat, on the grass!").input_ids
