"""Data sets of texts: a column of a table, or a file with one example a line."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from infoloss.data.assembly import dataset
from infoloss.data.columns import Categorical, Column, categorical
from infoloss.data.dataset import Dataset
from infoloss.data.features import Features, listing
from infoloss.data.inputs import Inputs
from infoloss.data.names import unknown
from infoloss.data.parts import title
from infoloss.data.roles import Roles
from infoloss.data.texts import HashedTexts, TokenTexts

__all__ = ["FORMS", "from_lines", "text_inputs", "texts_of"]

FORMS: Mapping[str, Callable[[Sequence[str]], Inputs]] = {"hashed": HashedTexts, "tokens": TokenTexts}
"""What texts are turned into, by name."""


def from_lines(
    path: Path, *, text: str = "hashed", split: str | None = None, test: Path | None = None
) -> Dataset:
    """A data set from a file with one example a line: the label, a tab (or else a space), the text.

    Args:
        path: plain or gzipped; UTF-8, else Latin-1. Blank lines are left out.
        text: a key of `FORMS`.
        split: fractions, as in `load`.
        test: a second such file, whose rows are the test rows.

    Raises:
        ValueError: no such file, no line, or a line without a text.
    """
    labels, texts, notes = _lines(path)
    parts = None
    if test is not None:
        more, others, said = _lines(test)
        parts = categorical(["train"] * len(labels) + ["test"] * len(more))
        labels, texts, notes = labels + more, texts + others, notes + said
    roles = Roles(
        target=categorical(labels), target_name="the label before each text", parts=parts, fractions=split
    )
    source = path.name if test is None else f"{path.name}, test rows from {test.name}"
    return dataset(title(path), text_inputs(texts, text), roles, source=source, notes=notes)


def text_inputs(texts: Sequence[str], form: str) -> Inputs:
    """Texts in one of the `FORMS`.

    Raises:
        ValueError: another form, or no text with a word in it.
    """
    if form not in FORMS:
        raise unknown("form of texts", form, FORMS)
    if not any(any(letter.isalnum() for letter in text) for text in texts):
        raise ValueError("the texts hold no word: there is nothing to learn from")
    return FORMS[form](texts)


def texts_of(features: Features, column: Column | None) -> tuple[list[str], tuple[str, ...]]:
    """The texts of a table, one a row, and notes; a missing text is empty.

    Args:
        features: all columns of the table that have no role.
        column: the column of texts; the only one of text among the features unless given.

    Raises:
        ValueError: no such column, or several.
    """
    unused = list(features.names)
    said: tuple[str, ...] = ()
    if column is None:
        if len(features.categorical) != 1:
            listed = ", ".join(map(repr, features.categorical_names)) or "none"
            raise ValueError(f"columns of text: {listed}; name one with text_column (--text-column)")
        [column], [name] = features.categorical, features.categorical_names
        unused.remove(name)
        said = (f"text: {name}",)
    if not isinstance(column, Categorical):
        raise ValueError("the column of texts holds numbers; expected texts")
    if unused:
        said += (f"columns that are not used beside the text: {listing(unused)}",)
    texts = (*column.categories, "")  # code −1 is the last
    return [texts[code] for code in column.codes], said


def _lines(path: Path) -> tuple[list[str], list[str], tuple[str, ...]]:
    """Labels, texts, notes."""
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    content = path.read_bytes()
    if path.suffix == ".gz":
        content = gzip.decompress(content)
    notes: tuple[str, ...] = ()
    try:
        whole = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        whole, notes = content.decode("latin-1"), (f"{path.name} is not UTF-8; read as Latin-1",)
    lines = [(number, line) for number, line in enumerate(whole.split("\n"), 1) if line.strip()]
    if not lines:
        raise ValueError(f"{path} is empty; expected a label and a text a line")
    mark = "\t" if "\t" in lines[0][1] else " "
    labels, texts = [], []
    for number, line in lines:
        label, _, text = line.strip().partition(mark)
        if not text.strip():
            raise ValueError(f"{path}, line {number}: {line.strip()!r}; expected a label, a tab and a text")
        labels.append(label.strip())
        texts.append(text.strip())
    return labels, texts, notes
