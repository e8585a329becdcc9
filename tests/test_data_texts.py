"""Texts from tables and from lines, hashed and as ids of words."""

from __future__ import annotations

import gzip
import os
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from sklearn.utils import murmurhash3_32

from infoloss.data import load
from infoloss.data.texts import HASHED_FEATURES, HashedTexts, TokenTexts

SUBJECTS = ("the card", "my account", "a transfer", "one top-up")
VERBS = ("is lost", "never arrived", "was declined", "costs too much", "has a limit?")
TEXTS = [f"{subject} {verb}, {number}x" for number in range(3) for subject in SUBJECTS for verb in VERBS]
LABELS = ["card", "account", "transfer", "top up"] * 15
LABELS = [LABELS[number // 5 % 4] for number in range(60)]


def csv(texts=TEXTS, labels=LABELS, header="text,label", extra="") -> str:
    rows = [f'"{text}",{extra}{label}' for text, label in zip(texts, labels, strict=True)]
    return "\n".join([header, *rows])


@pytest.fixture
def file(tmp_path):
    def write(content, name="texts.csv"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def test_hashing_by_hand():
    texts = ["My card, my CARD!", "a b", "card my"]
    found = HashedTexts(texts).encoded(np.arange(1))
    words = ["my", "card", "my", "card", "my card", "card my", "my card"]
    expected = np.zeros(HASHED_FEATURES)
    for word in words:
        number = murmurhash3_32(word, seed=0)
        expected[abs(number) % HASHED_FEATURES] += 1 if number >= 0 else -1
    np.testing.assert_allclose(found[0], expected / np.linalg.norm(expected), rtol=1e-6)
    assert found.dtype == np.float32
    assert (found[1] == 0).all()
    assert (found[2] != found[0]).any()


def test_ids_by_hand():
    texts = ["b a a c", "a, B!", "d d d d e", ""]
    tokens = TokenTexts(texts)
    train = np.array([0, 1])
    counts = Counter(re.findall(r"\w+", "b a a c a b"))
    ranked = sorted(sorted(counts), key=lambda word: -counts[word])
    assert ranked == ["a", "b", "c"]
    assert tokens.input_shape == (5,)
    assert tokens.vocabulary == 2 + 5
    expected = [[3, 2, 2, 4, 0], [2, 3, 0, 0, 0], [1, 1, 1, 1, 1], [0, 0, 0, 0, 0]]
    assert tokens.encoded(train).tolist() == expected
    assert tokens.encoded(np.arange(4)).max() == tokens.vocabulary - 1


def test_long_texts_and_rare_words(monkeypatch):
    monkeypatch.setattr("infoloss.data.texts.MAX_TOKENS", 3)
    monkeypatch.setattr("infoloss.data.texts.MAX_VOCABULARY", 2)
    tokens = TokenTexts(["a a b c", "b a", "c d"])
    assert tokens.vocabulary == 4
    assert tokens.encoded(np.arange(3)).tolist() == [[2, 2, 3], [3, 2, 0], [1, 1, 0]]
    assert "1 texts have more words; the others are left out" in tokens.notes()


def test_a_column_of_a_table(file):
    data = load(file(csv()), text="hashed")
    assert data.classes == ("account", "card", "top up", "transfer")
    assert data.input_shape == (HASHED_FEATURES,)
    assert data.vocabulary is None
    assert (data.features.encoded(np.arange(1)) == HashedTexts(TEXTS).encoded(np.arange(1))).all()
    tokens = load(file(csv()), text="tokens")
    assert tokens.vocabulary == len({word for text in TEXTS for word in re.findall(r"\w+", text)}) + 2
    assert tokens.sha256 != data.sha256
    assert tokens.split(3).sha256 == data.split(3).sha256
    arrays = tokens.arrays(tokens.split(0))
    assert arrays.features.dtype == np.int32


def test_which_column(file):
    two = file(csv(header="text,lang,n,label", extra="en,3,"))
    with pytest.raises(ValueError, match=r"columns of text: 'text', 'lang'; name one with text_column"):
        load(two, text="hashed")
    data = load(two, text_column="text")
    assert data.sha256 == load(file(csv(), "other.csv"), text="hashed").sha256
    assert "columns that are not used beside the text: n, lang" in data.notes
    assert load(two, text="hashed", drop=["lang"]).sha256 == data.sha256
    with pytest.raises(ValueError, match=r"no column 'txt'; did you mean 'text'\?"):
        load(two, text_column="txt")
    with pytest.raises(ValueError, match="the column of texts holds numbers"):
        load(two, text_column="n")
    with pytest.raises(ValueError, match="column 'label' is both target and text"):
        load(two, text_column="label", target="label")


def test_missing_texts_are_empty(file):
    data = load(file(csv(texts=["", *TEXTS[1:]])), text="tokens")
    assert (data.features.encoded(np.arange(1))[0] == 0).all()


def test_lines(file):
    expected = load(file(csv()), text="hashed").sha256
    tabs = "\n".join(f"{label}\t{text}" for label, text in zip(LABELS, TEXTS, strict=True)) + "\n\n"
    assert load(file(tabs, "texts.txt")).sha256 == expected
    assert load(file(gzip.compress(tabs.encode()), "texts.txt.gz")).sha256 == expected
    assert load(file(tabs.replace("\n", "\r\n"), "texts.all"), text="hashed").sha256 == expected
    spaces = tabs.replace("\t", " ").replace("top up ", "top_up ")
    assert load(file(spaces, "texts.txt")).classes == ("account", "card", "top_up", "transfer")


def test_latin_1_is_read_and_said(file):
    lines = "\n".join(f"{label}\tcafé {text}" for label, text in zip(LABELS, TEXTS, strict=True))
    data = load(file(lines.encode("latin-1"), "texts.txt"), text="tokens")
    assert "texts.txt is not UTF-8; read as Latin-1" in data.notes
    assert data.features.texts[0].startswith("café")


def test_given_test_rows(file):
    train, test = csv(TEXTS[:40], LABELS[:40]), csv(TEXTS[40:], LABELS[40:])
    data = load(file(train, "train.csv"), test=file(test, "test.csv"), text="tokens")
    assert data.split(1).test.tolist() == list(range(40, 60))
    assert data.name == file("", "x").parent.name
    lines = [f"{label}\t{text}" for label, text in zip(LABELS, TEXTS, strict=True)]
    again = load(
        file("\n".join(lines[:40]), "a.txt"), test=file("\n".join(lines[40:]), "b.txt"), text="tokens"
    )
    assert again.sha256 == data.sha256
    assert again.source == "a.txt, test rows from b.txt"


def test_errors_say_what_is_wrong(file):
    with pytest.raises(ValueError, match=r"no form of texts 'hash'; did you mean 'hashed'\?"):
        load(file(csv()), text="hash")
    with pytest.raises(ValueError, match=r"texts.txt, line 2: 'card'; expected a label, a tab and a text"):
        load(file("card\twhere\ncard\n", "texts.txt"))
    with pytest.raises(ValueError, match=r"texts.txt is empty"):
        load(file("\n \n", "texts.txt"))
    with pytest.raises(ValueError, match=r"none.txt: no such file"):
        load("none.txt")
    with pytest.raises(ValueError, match="the texts hold no word"):
        load(file("".join(f"{label}\t?!\n" for label in LABELS), "texts.txt"))
    with pytest.raises(ValueError, match=r"target='y': .*is a file of texts; it takes text, split, test"):
        load(file("a\tb\n", "texts.txt"), target="y")
    with pytest.raises(ValueError, match='is it free text\\? text="hashed" \\(--text hashed\\) reads it'):
        load(file(csv()))


@pytest.mark.data
def test_banking77():
    folder = Path(os.environ.get("INFOLOSS_DATA", "nowhere")) / "text/banking77"
    if not folder.is_dir():
        pytest.skip("INFOLOSS_DATA holds no text/banking77")
    data = load(folder / "train.csv", test=folder / "test.csv", text="tokens")
    assert (data.name, len(data.classes), len(data.target)) == ("banking77", 77, 13_083)
    assert len(data.split(0).test) == 3080
