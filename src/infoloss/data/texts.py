"""Rows that are texts: hashed n-grams for models of numbers, token ids for models of embeddings."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b

import numpy as np

__all__ = ["HASHED_FEATURES", "MAX_TOKENS", "MAX_VOCABULARY", "HashedTexts", "TokenTexts"]

HASHED_FEATURES = 4096
MAX_TOKENS = 256
"""Words of one text that are read; the others are left out."""
MAX_VOCABULARY = 20_000
"""Words with an id of their own; the rarer ones share one."""

PADDING, UNKNOWN = 0, 1
_FIRST = 2
_WORD = re.compile(r"\w+")


@dataclass(frozen=True, eq=False)
class _Texts:
    texts: Sequence[str]

    @property
    def rows(self) -> int:
        return len(self.texts)

    @property
    def names(self) -> tuple[str, ...]:
        return ()

    @property
    def categories(self) -> tuple[tuple[str, ...], ...]:
        return ()

    @property
    def encoded_names(self) -> tuple[str, ...]:
        return ()

    def row_keys(self) -> np.ndarray:
        keys = (blake2b(text.encode(), digest_size=8).digest() for text in self.texts)
        return np.frombuffer(b"".join(keys), "<u8").astype(np.uint64)

    def _canonical(self, form: str) -> Iterator[np.ndarray]:
        for text in (form, *self.texts):
            content = text.encode()
            yield np.array(len(content), "<i8")
            yield np.frombuffer(content, np.uint8)


class HashedTexts(_Texts):
    """Words and pairs of neighbouring words, hashed: scikit-learn's `HashingVectorizer`.

    Lower case, words of two letters or more; each row is scaled to the length 1. Nothing is learnt from the
    rows.
    """

    @property
    def input_shape(self) -> tuple[int, ...]:
        return (HASHED_FEATURES,)

    def encoded(self, train: np.ndarray) -> np.ndarray:
        """(N, F) float32."""
        return self._hashed

    def canonical(self) -> Iterator[np.ndarray]:
        return self._canonical(f"hashed {HASHED_FEATURES}")

    def notes(self) -> tuple[str, ...]:
        return (f"texts are read as words and pairs of words, hashed into {HASHED_FEATURES} features",)

    @cached_property
    def _hashed(self) -> np.ndarray:
        try:
            from sklearn.feature_extraction.text import HashingVectorizer
        except ModuleNotFoundError:
            raise ModuleNotFoundError("texts need scikit-learn: pip install 'infoloss[study]'") from None

        hashing = HashingVectorizer(n_features=HASHED_FEATURES, ngram_range=(1, 2), dtype=np.float32)
        found: np.ndarray = hashing.transform(self.texts).toarray()
        return found


class TokenTexts(_Texts):
    """Ids of words in their order, padded with 0.

    Words are runs of letters, digits and underscores, in lower case. The most frequent ones of the training
    rows have ids from 2 on (ties in alphabetical order), all others the id 1.
    """

    @property
    def input_shape(self) -> tuple[int, ...]:
        """(L,): the words of the longest text, `MAX_TOKENS` at most."""
        return (max(1, min(MAX_TOKENS, max(map(len, self._words)))),)

    @property
    def vocabulary(self) -> int:
        """How many ids there are, padding and unknown words included; the same for every split."""
        return _FIRST + min(MAX_VOCABULARY, len({word for words in self._words for word in words}))

    def encoded(self, train: np.ndarray) -> np.ndarray:
        """(N, L) int32."""
        counts = Counter(word for row in train for word in self._words[row])
        ranked = sorted(counts, key=lambda word: (-counts[word], word))[:MAX_VOCABULARY]
        ids = {word: number for number, word in enumerate(ranked, _FIRST)}
        (length,) = self.input_shape
        found = np.full((self.rows, length), PADDING, np.int32)
        for row, words in enumerate(self._words):
            known = [ids.get(word, UNKNOWN) for word in words[:length]]
            found[row, : len(known)] = known
        return found

    def canonical(self) -> Iterator[np.ndarray]:
        return self._canonical(f"tokens {MAX_TOKENS} {MAX_VOCABULARY}")

    def notes(self) -> tuple[str, ...]:
        (length,) = self.input_shape
        cut = sum(len(words) > length for words in self._words)
        said = f"texts are read as ids of words, {self.vocabulary} of them, padded to {length} a text"
        return (said, f"{cut} texts have more words; the others are left out") if cut else (said,)

    @cached_property
    def _words(self) -> list[list[str]]:
        return [_WORD.findall(text.lower()) for text in self.texts]
