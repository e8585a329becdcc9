"""Data sets by name and from files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infoloss.data.archives import from_archive
from infoloss.data.assembly import dataset
from infoloss.data.columns import Column, categorical
from infoloss.data.dataset import Dataset
from infoloss.data.features import from_matrix
from infoloss.data.functions import from_function
from infoloss.data.image_files import from_image_files
from infoloss.data.inputs import Inputs
from infoloss.data.known import BUNDLED, KNOWN
from infoloss.data.names import unknown
from infoloss.data.official import OFFICIAL, from_official
from infoloss.data.parts import title
from infoloss.data.roles import Roles, picked
from infoloss.data.splits import FRACTIONS
from infoloss.data.tables import SUFFIXES, Table, read_table
from infoloss.data.text_files import from_lines, text_inputs, texts_of
from infoloss.named import is_named

__all__ = ["load"]


def load(
    spec: str | Path = "digits",
    *,
    target: str | None = None,
    drop: Iterable[str] = (),
    group: str | None = None,
    order: str | None = None,
    sample_weight: str | None = None,
    split: str | None = None,
    test: str | Path | None = None,
    image_size: int | None = None,
    text: str | None = None,
    text_column: str | None = None,
) -> Dataset:
    """A data set by name, or from files: tables (.csv, .tsv, .parquet), arrays (.npz), images, texts.

    Args:
        spec: name (see `known_sets`) or path; of images a folder or .zip with one folder a class, perhaps
            below train/ and test/. Or "module:function", see `functions.from_function`.
        target: the column to predict; default: `roles.TARGETS`, else the last column.
        drop: columns to leave out.
        group: column of groups (patients, users …); no group has rows in two parts.
        order: column of times; the test rows are the latest, the validation rows the latest before them.
        sample_weight: column of weights ≥ 0, not a feature.
        split: fractions "0.6/0.2/0.2" of train/validation/test, or a column that holds these names (without
            validation rows, they are drawn from the training rows). Where the test rows are given: "0.8/0.2".
        test: a second table whose rows are the test rows.
        image_size: pixels a side that images are brought to.
        text: "hashed" or "tokens": read a column of a table as text, or a file with a label and a text a line
            (.txt is read so anyway), as hashed n-grams or as ids of words.
        text_column: which column of a table that is; the only one of text unless given.

    Returns:
        A `Dataset`; its notes say what was chosen, dropped, imputed and encoded.

    Raises:
        ValueError: for what cannot be learnt from, with place, value and what was expected; and for an option
            that does not belong to such data.

    Example:
        >>> load("digits").classes
        ('0', '1', '2', '3', '4', '5', '6', '7', '8', '9')
    """
    options = {
        "target": target,
        "drop": (drop,) if isinstance(drop, str) else tuple(drop),
        "group": group,
        "order": order,
        "sample_weight": sample_weight,
        "split": split,
        "test": test,
        "image_size": image_size,
        "text": text,
        "text_column": text_column,
    }
    given = {name: value for name, value in options.items() if value not in (None, ())}
    kind = _kind(spec, is_text=text is not None)
    for name, value in given.items():
        if name not in kind.options:
            takes = ", ".join(kind.options) or "no option"
            raise ValueError(f"{name}={value!r}: {str(spec)!r} is {kind.what}; it takes {takes}")
    return kind.read(spec, given)


@dataclass(frozen=True)
class Kind:
    """A kind of source: what it is, the options it takes, and what reads it."""

    what: str
    options: tuple[str, ...]
    read: Callable[[Any, Mapping[str, Any]], Dataset]


def _kind(spec: str | Path, *, is_text: bool) -> Kind:
    if str(spec) in BUNDLED:
        return _BUNDLED
    if str(spec) in OFFICIAL:
        return _OFFICIAL
    name = Path(spec).name.lower()
    if name.endswith(SUFFIXES):
        return _TABLE
    if name.endswith(".npz"):
        return _ARCHIVE
    if name.endswith(".zip") or Path(spec).is_dir():
        return _IMAGES
    if name.endswith((".txt", ".txt.gz")) or (is_text and Path(spec).exists()):
        return _LINES
    if is_named(str(spec)):
        return _FUNCTION
    kinds = f"{', '.join((*SUFFIXES, '.npz', '.txt'))}, a folder or .zip of images, module:function"
    if Path(spec).exists():
        raise ValueError(f"{spec}: expected {kinds}")
    if "/" in str(spec) or Path(spec).suffix:
        raise ValueError(f"{spec}: no such file or folder; expected {kinds}, or a name (infoloss data)")
    raise ValueError(f"{unknown('data set', str(spec), KNOWN)}, or a path: {kinds}")


def _bundled(spec: str | Path, given: Mapping[str, Any]) -> Dataset:
    try:
        import sklearn.datasets
    except ModuleNotFoundError:
        raise ModuleNotFoundError(f"{spec} needs scikit-learn: pip install 'infoloss[study]'") from None

    name = str(spec)
    bunch = getattr(sklearn.datasets, f"load_{name}")()
    features = from_matrix(bunch.data, names=tuple(map(str, bunch.feature_names)))
    labels = categorical([str(bunch.target_names[code]) for code in bunch.target])
    roles = Roles(target=labels, target_name="the target", fractions=given.get("split"))
    return dataset(name, features, roles, source=BUNDLED[name], notes=())


def _table(spec: str | Path, given: Mapping[str, Any]) -> Dataset:
    path, test, split = Path(spec), given.get("test"), given.get("split")
    roles = {role: given.get(option) for option, role in _COLUMNS.items()}
    fractions = split if split is not None and FRACTIONS.fullmatch(split) else None
    if split is not None and fractions is None:
        if test is not None:
            raise ValueError(f"split={split!r} and test={str(test)!r} both say which rows test; give one")
        roles["parts"] = split
    table, rows = read_table(path, test=test)
    features, chosen, target_name, notes = _picked(table, roles, given)
    if test is not None:
        chosen["parts"] = categorical(["train"] * rows + ["test"] * (len(chosen["target"]) - rows))
    return dataset(
        title(path),
        features,
        Roles(target_name=target_name, fractions=fractions, **chosen),
        source=path.name if test is None else f"{path.name}, test rows from {Path(test).name}",
        notes=(*notes, *table.notes),
    )


def _picked(
    table: Table, roles: Mapping[str, str | None], given: Mapping[str, Any]
) -> tuple[Inputs, dict[str, Column], str, tuple[str, ...]]:
    """Inputs, the columns that have a role, the target's name, notes."""
    if "text_column" in given:
        roles = {**roles, "text": given["text_column"]}
    features, chosen, target_name, notes = picked(table.columns, roles, given.get("drop", ()))
    if "text" not in given and "text_column" not in given:
        return features, chosen, target_name, notes
    texts, said = texts_of(features, chosen.pop("text", None))
    return text_inputs(texts, given.get("text", "hashed")), chosen, target_name, (*notes, *said)


def _lines(spec: str | Path, given: Mapping[str, Any]) -> Dataset:
    test = given.get("test")
    return from_lines(Path(spec), **{**given, "test": None if test is None else Path(test)})


def _archive(spec: str | Path, given: Mapping[str, Any]) -> Dataset:
    return from_archive(Path(spec), **given)


def _images(spec: str | Path, given: Mapping[str, Any]) -> Dataset:
    return from_image_files(Path(spec), **given)


def _official(spec: str | Path, given: Mapping[str, Any]) -> Dataset:
    return from_official(str(spec), **given)


def _function(spec: str | Path, given: Mapping[str, Any]) -> Dataset:
    return from_function(str(spec))


_COLUMNS = {"target": "target", "group": "groups", "order": "order", "sample_weight": "sample_weight"}

_BUNDLED = Kind("a set with fixed columns", ("split",), _bundled)
_OFFICIAL = Kind("a set of images", ("split", "image_size"), _official)
_TABLE = Kind("a table", (*_COLUMNS, "drop", "split", "test", "text", "text_column"), _table)
_ARCHIVE = Kind("an archive of arrays", ("split",), _archive)
_IMAGES = Kind("a folder of images", ("split", "image_size"), _images)
_LINES = Kind("a file of texts", ("text", "split", "test"), _lines)
_FUNCTION = Kind("a function, which says everything itself", (), _function)
