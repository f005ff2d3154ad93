"""Which token of an edited prompt reads which token of the source prompt (Hertz et al. 2022, sections 3.2 and 3.3).

Words and tokens are told apart by the tokenizer's character offsets, never by splitting strings, so "cat,", "Cat",
"a café" and hyphens cost nothing.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Literal

import torch
from torch import Tensor

from playground.errors import RecipeError
from playground.images.models import Text, TextEncoder, Token

Method = Literal["replace", "refine"]

MARK = "".join(chr(c) for c in range(0x12000) if unicodedata.category(chr(c)) in ("Mn", "Mc"))
LETTER = rf"[\w{MARK}]"
"""Accents and vowel signs may stand as characters of their own, which \\w leaves out."""
WORD = re.compile(rf"{LETTER}+(?:[-'’.]{LETTER}+)*|[^\w\s]")


@dataclass(frozen=True)
class Word:
    """A word of a prompt.

    Attributes:
        text: as it stands there.
        tokens: positions of its tokens in the model's context.
    """

    text: str
    tokens: tuple[int, ...]


@dataclass(frozen=True)
class Alignment:
    """How an edited prompt reads the attention of the source prompt.

    Attributes:
        method: how the two were aligned.
        source, target: their words, in order.
        matrix: [L, L], from source to target: edited attention = source attention @ matrix.
        own: [L] bool, the target's tokens that have no counterpart and keep their own attention.
    """

    method: Method
    source: tuple[Word, ...]
    target: tuple[Word, ...]
    matrix: Tensor
    own: Tensor

    def pairs(self) -> list[tuple[int, list[tuple[int, float]]]]:
        """Per token of the target's words, the source tokens it reads and with which weights."""
        used = [i for word in self.target for i in word.tokens]
        found = []
        for j in used:
            column = [] if bool(self.own[j]) else self.matrix[:, j].nonzero().flatten().tolist()
            found.append((j, [(i, float(self.matrix[i, j])) for i in column]))
        return found


def words_of(prompt: str, tokens: Sequence[Token]) -> list[Word]:
    """The words of a prompt that are within the model's context.

    A token that spans two words (there are tokenizers with such) belongs to the first.
    """
    words, taken = [], set()
    for match in WORD.finditer(prompt):
        inside = [
            i
            for i, t in enumerate(tokens)
            if t.end > t.start and t.start < match.end() and t.end > match.start() and i not in taken
        ]
        taken.update(inside)
        if inside:
            words.append(Word(match[0], tuple(inside)))
    return words


def align(source: str, target: str, text: Text, method: Method | Literal["auto"] = "auto") -> Alignment:
    """Align two prompts.

    "auto" takes replace where words only stand in the place of equally many others, and refine otherwise.

    Args:
        source, target: the prompts.
        text: the encoder that reads them.
        method: replace swaps words, and each target token reads its counterpart, an added word that of the word
            behind it; refine adds words, which keep their own attention. A source without words has nothing to
            swap: then it is refine.

    Raises:
        RecipeError: when one of them is longer than the model's context.
    """
    # Several encoders of one model read the same tokens (Stable Diffusion XL).
    reader = text.encoders[0]
    for prompt in (source, target):
        _check_length(prompt, reader)
    a, b = reader.tokens(source), reader.tokens(target)
    words_a, words_b = words_of(source, a), words_of(target, b)
    if method == "auto":
        method = "replace" if changes(words_a, words_b) <= {"swapped"} else "refine"
    if words_b and not words_a:
        # Replaced, they would attend beside tokens that already take all of the source's attention.
        method = "refine"
    matrix = torch.zeros(reader.length, reader.length)
    own = torch.zeros(reader.length, dtype=torch.bool)
    if method == "replace":
        _replace(words_a, words_b, matrix, own)
    else:
        _refine(words_a, words_b, a, b, matrix, own)
    _frame(method, a, b, words_a, words_b, matrix, own)
    return Alignment(method, tuple(words_a), tuple(words_b), matrix, own)


Change = Literal["swapped", "added", "removed"]


def changes(source: Sequence[Word], target: Sequence[Word]) -> set[Change]:
    """What was done to words between two prompts; nothing, where they are the same. A word that was moved was
    removed in one place and added in another."""
    found: set[Change] = set()
    for kind, i, i2, j, j2 in _differences(source, target):
        if kind == "replace":
            found.add("swapped")
        if i2 - i < j2 - j:
            found.add("added")
        if i2 - i > j2 - j:
            found.add("removed")
    return found


def _differences(source: Sequence[Word], target: Sequence[Word]) -> Sequence[tuple[str, int, int, int, int]]:
    """Longest common runs of words, and what stands between them, as `SequenceMatcher.get_opcodes` tells it."""
    texts = ([w.text.casefold() for w in source], [w.text.casefold() for w in target])
    return SequenceMatcher(None, *texts, autojunk=False).get_opcodes()


def _check_length(prompt: str, text: TextEncoder) -> None:
    needed = text.count(prompt)
    if needed > text.length:
        raise RecipeError(
            f"The prompt “{prompt[:40]}…” has {needed} tokens and the model reads {text.length}: what is cut off "
            "cannot be aligned."
        )


def _replace(source: list[Word], target: list[Word], matrix: Tensor, own: Tensor) -> None:
    """Word by word where there are equally many, else by the longest common runs of words."""
    if len(source) == len(target):
        segments = [([a], [b]) for a, b in zip(source, target, strict=True)]
    else:
        segments = []
        for kind, i, i2, j, j2 in _differences(source, target):
            if kind == "equal":
                segments += [([a], [b]) for a, b in zip(source[i:i2], target[j:j2], strict=True)]
            else:
                segments.append((source[i:i2], target[j:j2]))
        segments = _shared(segments)
    for old, new in segments:
        before = [t for word in old for t in word.tokens]
        after = [t for word in new for t in word.tokens]
        if not before:
            own[after] = True
        elif not after:
            matrix[before, 0] = 1.0  # nobody reads them: their share goes to the first token, which means nothing
        elif len(before) == len(after):
            matrix[before, after] = 1.0
        else:
            # Every source token's share is spread evenly, so that the shares of a row still add up to 1.
            matrix[torch.tensor(before)[:, None], torch.tensor(after)[None]] = 1.0 / len(after)


def _shared(segments: list[tuple[list[Word], list[Word]]]) -> list[tuple[list[Word], list[Word]]]:
    """Without segments of added words alone: those share what the next word reads, or the last one's at the end.

    Kept to themselves, they would attend beside words that already take all of the source's attention.
    """
    made: list[tuple[list[Word], list[Word]]] = []
    waiting: list[Word] = []
    for old, new in segments:
        if old and new:
            made.append((old, waiting + new))
            waiting = []
        elif old:
            made.append((old, new))
        else:
            waiting = waiting + new
    if waiting:
        last = next((k for k in reversed(range(len(made))) if made[k][1]), None)
        if last is None:
            made.append(([], waiting))
        else:
            made[last] = (made[last][0], made[last][1] + waiting)
    return made


def _refine(
    source: list[Word], target: list[Word], a: Sequence[Token], b: Sequence[Token], matrix: Tensor, own: Tensor
) -> None:
    """Tokens by Needleman and Wunsch (1970): match 1, mismatch -1, gap 0."""
    left = [i for word in source for i in word.tokens]
    right = [j for word in target for j in word.tokens]
    n, m = len(left), len(right)
    score = [[0] * (m + 1) for _ in range(n + 1)]
    for i in range(1, n + 1):
        for j in range(1, m + 1):
            same = 1 if a[left[i - 1]].id == b[right[j - 1]].id and _alike(a[left[i - 1]], b[right[j - 1]]) else -1
            score[i][j] = max(score[i - 1][j], score[i][j - 1], score[i - 1][j - 1] + same)
    own[right] = True
    i, j = n, m
    while i and j:
        if score[i][j] == score[i][j - 1]:
            j -= 1
        elif score[i][j] == score[i - 1][j]:
            i -= 1
        else:
            i, j = i - 1, j - 1
            matrix[left[i], right[j]], own[right[j]] = 1.0, False


def _alike(a: Token, b: Token) -> bool:
    """Unknown words share one id and are not the same word for that."""
    return "unknown" not in (a.kind, b.kind) or a.text.casefold() == b.text.casefold()


def _frame(
    method: Method,
    a: Sequence[Token],
    b: Sequence[Token],
    source: list[Word],
    target: list[Word],
    matrix: Tensor,
    own: Tensor,
) -> None:
    """Begin, end and padding tokens, and whatever belongs to no word: each reads the one at the same place,
    counted from the beginning before the words' end and from there behind it.

    In replace, what a place attends to still adds up to 1: where the target has more of them, the further ones
    share the source's last one; where it has fewer, its last one reads all that are left. In refine, the further
    ones keep their own attention, and what is left is not read: a token reads one of the source or none.
    """

    def rest(tokens: Sequence[Token], words: list[Word]) -> tuple[list[int], list[int]]:
        inside = {i for word in words for i in word.tokens}
        last = max(inside, default=0)
        free = [i for i in range(len(tokens)) if i not in inside]
        return [i for i in free if i < last or i == 0], [i for i in free if i > last and i != 0]

    for before, after in zip(rest(a, source), rest(b, target), strict=True):
        for i, j in zip(before, after, strict=False):
            matrix[i, j] = 1.0
        further = after[len(before) :]
        if further and before and method == "replace":
            sharing = [after[len(before) - 1], *further]
            matrix[before[-1], sharing] = 1.0 / len(sharing)
        else:
            own[further] = True
        if method == "replace":
            for i in before[len(after) :]:
                matrix[i, after[-1] if after else 0] = 1.0
