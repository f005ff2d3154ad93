"""Alignment of prompts on easy and on hard strings."""

from __future__ import annotations

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from playground.devices import choose_device
from playground.errors import RecipeError
from playground.images.alignment import WORD, align, changes, words_of
from playground.images.models import TextEncoder, Token, load_model

TEXTS = [
    "a cat riding a bicycle",
    "a cat riding a car, at night!",
    "a café-bar with the dog's bone; CAT cat Cat",
    "çedilla naïve ПРИВЕТ 猫 🐈 e\u0301",
    "3.5 apples (two) and-so-on",
]


def reader_of(length=40):
    """A text encoder's tokenizer without its network: byte-level pieces, as CLIP has."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        special_tokens=["<s>", "</s>", "<pad>", "<unk>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>"
    )
    return TextEncoder(fast, None, choose_device("cpu"), length=length)


@pytest.fixture(scope="module")
def reader():
    return reader_of()


@pytest.fixture(scope="module", params=["byte-level pieces", "CLIP's pieces", "the bundled model's words"])
def any_reader(request):
    """A tokenizer of each kind, with room for all of the texts."""
    if request.param == "byte-level pieces":
        return reader_of()
    if request.param == "CLIP's pieces":
        tokenizer = request.getfixturevalue("models")["sd1"].text.encoders[0].tokenizer
    else:
        tokenizer = load_model().text.encoders[0].tokenizer
    return TextEncoder(tokenizer, None, choose_device("cpu"), length=96)


def reads(alignment, target_word):
    """The texts of the source words that a word of the target reads."""
    tokens = set(alignment.target[target_word].tokens)
    sources = {i for j, found in alignment.pairs() if j in tokens for i, _ in found}
    return [w.text for w in alignment.source if sources & set(w.tokens)]


@pytest.mark.parametrize("prompt", [*TEXTS, "", "   ", "a", "cat," * 9])
@pytest.mark.parametrize("method", ["auto", "replace", "refine"])
def test_a_prompt_reads_itself(any_reader, prompt, method):
    found = align(prompt, prompt, any_reader, method)
    assert torch.equal(found.matrix, torch.eye(any_reader.length)) and not found.own.any()


@pytest.mark.parametrize("method", ["replace", "refine"])
@pytest.mark.parametrize("source", TEXTS)
@pytest.mark.parametrize("target", TEXTS)
def test_every_column_reads_something_or_keeps_its_own(any_reader, source, target, method):
    found = align(source, target, any_reader, method)
    read = found.matrix.sum(0) > 0
    if method == "refine":
        assert torch.equal(read, ~found.own)
        # One token of the source or none.
        assert set(found.matrix.unique().tolist()) <= {0.0, 1.0}
        assert found.matrix.sum(0).max() <= 1 and found.matrix.sum(1).max() <= 1
    assert not (read & found.own).any()


@pytest.mark.parametrize("source", TEXTS)
@pytest.mark.parametrize("target", TEXTS)
def test_replace_hands_on_all_of_the_attention(any_reader, source, target):
    found = align(source, target, any_reader, "replace")
    assert torch.allclose(found.matrix.sum(1), torch.ones(any_reader.length))
    assert not found.own.any() or not found.source


@pytest.mark.parametrize(
    ("target", "shared"),
    [
        ("a red cat sat", {"red": "cat", "cat": "cat"}),
        ("a cat sat down there", {"sat": "sat", "down": "sat", "there": "sat"}),
        ("now a cat sat", {"now": "a", "a": "a"}),
    ],
)
def test_in_replace_added_words_share_what_a_neighbour_reads(any_reader, target, shared):
    found = align("a cat sat", target, any_reader, "replace")
    texts = [w.text for w in found.target]
    assert {word: reads(found, texts.index(word)) for word in shared} == {k: [v] for k, v in shared.items()}


def test_a_swapped_word_reads_its_counterpart_and_the_tail_its_own(reader):
    """The words behind a swap of k tokens for l tokens each read their own source word."""
    found = align("a cat riding a bicycle", "a xylophone riding a bicycle", reader)
    assert found.method == "replace"
    assert len(found.source[1].tokens) != len(found.target[1].tokens)
    assert [reads(found, k) for k in range(5)] == [["a"], ["cat"], ["riding"], ["a"], ["bicycle"]]
    for a, b in zip(found.source[2:], found.target[2:], strict=True):
        assert [[i for i, _ in pair[1]] for pair in found.pairs() if pair[0] in b.tokens] == [[i] for i in a.tokens]


def test_added_words_keep_their_own(reader):
    found = align("a cat riding a car", "a red cat riding a car at night", reader)
    assert found.method == "refine"
    assert [reads(found, k) for k in range(8)] == [["a"], [], ["cat"], ["riding"], ["a"], ["car"], [], []]


def test_words_are_found_by_offsets(reader):
    prompt = "a café-bar with the dog's bone; CAT, cat"
    words = [w.text for w in words_of(prompt, reader.tokens(prompt))]
    assert words == ["a", "café-bar", "with", "the", "dog's", "bone", ";", "CAT", ",", "cat"]


def test_no_token_belongs_to_two_words(reader):
    for prompt in TEXTS:
        used = [t for w in words_of(prompt, reader.tokens(prompt)) for t in w.tokens]
        assert len(used) == len(set(used))


def test_a_token_over_two_words_belongs_to_the_first():
    tokens = [
        Token("<s>", 0, "special", 0, 0),
        Token("a cat", 5, "word", 0, 5),
        Token(" sat", 6, "word", 5, 9),
    ]
    assert [w.tokens for w in words_of("a cat sat", tokens)] == [(1,), (2,)]


def test_repeated_words_stay_in_order(reader):
    found = align("cat cat dog cat", "cat cat bicycle cat", reader)
    assert [reads(found, k) for k in (0, 1, 3)] == [["cat"]] * 3
    pairs = dict(found.pairs())
    assert [pairs[w.tokens[0]][0][0] for w in (found.target[0], found.target[1], found.target[3])] == [
        found.source[k].tokens[0] for k in (0, 1, 3)
    ]


def test_case_decides_nothing_in_replace(reader):
    found = align("a Cat sat down", "a cat sat", reader, "replace")
    assert reads(found, 1) == ["Cat"] and reads(found, 2) == ["sat"]


def test_unknown_words_are_not_taken_for_one_another(models):
    text = models["sd2"].text
    found = align("a qqq cat", "a zzz cat on grass", text, "refine")
    assert reads(found, 1) == []
    assert reads(align("a qqq cat", "a qqq cat on grass", text, "refine"), 1) == ["qqq"]


def test_a_prompt_longer_than_the_context_is_a_sentence(reader):
    with pytest.raises(RecipeError, match="tokens and the model reads 40"):
        align("a cat", "猫 " * 60, reader)


def test_end_and_padding_read_end_and_padding(reader):
    source, target = "a cat", "a cat riding a bicycle"
    found = align(source, target, reader)
    end_a = [t.text for t in reader.tokens(source)].index("</s>")
    end_b = [t.text for t in reader.tokens(target)].index("</s>")
    assert found.matrix[end_a, end_b] == 1 and found.matrix[0, 0] == 1
    assert found.matrix[end_a + 1, end_b + 1] == 1


@pytest.mark.parametrize(
    ("source", "target", "expected", "method"),
    [
        ("a cat on the grass", "a dog on the grass", {"swapped"}, "replace"),
        ("a cat", "a cat", set(), "replace"),
        ("a cat", "a red cat", {"added"}, "refine"),
        ("a red cat", "a cat", {"removed"}, "refine"),
        ("a cat on a red dog", "a red cat on a dog", {"added", "removed"}, "refine"),
    ],
)
def test_auto_replaces_only_what_was_swapped(reader, source, target, expected, method):
    found = align(source, target, reader)
    assert changes(found.source, found.target) == expected and found.method == method


@pytest.mark.parametrize("word", ["cafe\u0301", "नमस्ते", "naïve"])
def test_accents_of_their_own_do_not_split_a_word(word):
    assert WORD.findall(f"a {word}, then") == ["a", word, ",", "then"]
