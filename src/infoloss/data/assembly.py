"""From columns and their roles to a data set, with every check at this edge."""

from __future__ import annotations

import numpy as np

from infoloss.data.columns import Categorical, Column, codes, missing
from infoloss.data.dataset import Dataset
from infoloss.data.features import Features, listing
from infoloss.data.inputs import Inputs
from infoloss.data.names import counted
from infoloss.data.parts import part
from infoloss.data.roles import Roles
from infoloss.data.splits import PARTS, SplitRule, fractions

__all__ = ["dataset"]


def dataset(name: str, inputs: Inputs, roles: Roles, *, source: str, notes: tuple[str, ...]) -> Dataset:
    """The data set of these inputs and roles; raises where they cannot be learnt from."""
    if isinstance(inputs, Features):
        _check_finite(inputs)
    target, classes = _labels(roles.target, roles.target_name)
    rule = _rule(roles)
    inputs, dropped = _useful(inputs) if isinstance(inputs, Features) else (inputs, ())
    made = Dataset(
        name=name,
        features=inputs,
        target=target,
        classes=classes,
        rule=rule,
        sample_weight=_weights(roles.sample_weight),
        notes=(*notes, *dropped, *inputs.notes()),
        source=source,
    )
    _check_classes(made, roles.target_name)
    return made


def _check_finite(features: Features) -> None:
    infinite = features.infinite()
    if infinite is not None:
        row, column = infinite
        raise ValueError(
            f"column {column!r} is infinite in row {row} (counted from 0); expected finite numbers, "
            "or an empty field for a missing value"
        )


def _labels(labels: Column, name: str) -> tuple[np.ndarray, tuple[str, ...]]:
    absent = missing(labels)
    if absent.any():
        raise ValueError(
            f"{name} has {counted(int(absent.sum()), 'missing label')} (empty, nan, NA, None, ? …), "
            f"the first in row {int(absent.argmax())} (counted from 0); remove these rows or label them"
        )
    target, classes = codes(labels)
    if not isinstance(labels, Categorical) and np.isinf(labels).any():
        raise ValueError(f"{name} has infinite labels; expected class labels")
    if len(classes) == 1:
        raise ValueError(f"{name} has the single class {classes[0]!r}; expected two classes or more")
    _check_not_continuous(labels, classes, name)
    return target, classes


def _check_not_continuous(labels: Column, classes: tuple[str, ...], name: str) -> None:
    rows, distinct = len(labels), len(classes)
    if isinstance(labels, Categorical):
        if distinct > 20 and distinct > rows / 2:
            raise ValueError(
                f"{name} has {distinct} distinct labels in {rows} rows; expected classes of several rows"
            )
        return
    whole = np.array_equal(labels, np.floor(labels))
    if distinct > 20 and (distinct > rows / 5 or not whole):
        raise ValueError(f"{name} has {distinct} distinct numbers; infoloss compares classification losses")


def _useful(features: Features) -> tuple[Features, tuple[str, ...]]:
    constant = features.constant()
    left = features.without(constant)
    # Columns of a bare matrix have no names that could say what they are.
    named = features.numeric_names[:1] != ("x0",)
    identifiers = left.identifiers() if named else set()
    useful = left.without(identifiers)
    reasons = (("dropped, one value in all rows", constant), ("dropped, names rows (ID-like)", identifiers))
    notes = tuple(
        f"{reason}: {listing([n for n in features.names if n in names])}"
        for reason, names in reasons
        if names
    )
    if not useful.names:
        why = "; ".join(notes) or "the table has no column beside the target"
        if identifiers & set(features.categorical_names):
            why += '; is it free text? text="hashed" (--text hashed) reads it'
        raise ValueError(f"no feature is left to learn from: {why}")
    return useful, notes


def _rule(roles: Roles) -> SplitRule:
    given = [
        label
        for label, value in (("order", roles.order), ("split or test", roles.parts), ("group", roles.groups))
        if value is not None
    ]
    if roles.order is not None and len(given) > 1:
        raise ValueError(f"{' and '.join(given)} cannot be combined: order fixes every part by itself")
    assignment = None if roles.parts is None else _assignment(roles.parts)
    groups = None if roles.groups is None else _groups(roles.groups, assignment)
    order = None if roles.order is None else _order(roles.order)
    return SplitRule(_shares(roles.fractions, assignment), groups, order, assignment)


def _shares(text: str | None, assignment: np.ndarray | None) -> tuple[float, float, float]:
    if text is None:
        return (0.6, 0.2, 0.2)
    if assignment is None:
        train, validation, test = fractions(text)
        return (train, validation, test)
    if (assignment == 1).any():
        raise ValueError(f"split={text!r}, but the data say themselves which rows train, validate and test")
    train, validation = fractions(text, parts=2)
    return (train, validation, 0.0)


def _assignment(parts: Column) -> np.ndarray:
    if not isinstance(parts, Categorical) or (parts.codes < 0).any():
        raise ValueError("the split column must name train, validation or test in every row")
    meant = {name: part(name) for name in parts.categories}
    wrong = [name for name, found in meant.items() if found is None]
    if wrong:
        raise ValueError(f"the split column holds {wrong[0]!r}; expected train, validation or test")
    number = np.array([PARTS.index(found) for found in meant.values() if found is not None])
    assignment = number[parts.codes]
    for needed in (0, 2):
        if not (assignment == needed).any():
            raise ValueError(
                f"the split column names no {PARTS[needed]} row; expected train and test at least"
            )
    return np.asarray(assignment)


def _groups(groups: Column, assignment: np.ndarray | None) -> np.ndarray:
    absent = missing(groups)
    if absent.any():
        raise ValueError(f"the group of row {int(absent.argmax())} (counted from 0) is missing")
    member, names = codes(groups)
    if assignment is not None:
        sides = assignment if (assignment == 1).any() else (assignment == 2).astype(int)
        pairs = np.unique(np.stack([member, sides], axis=1), axis=0)
        shared = np.flatnonzero(np.bincount(pairs[:, 0]) > 1)
        if len(shared):
            raise ValueError(f"group {names[shared[0]]!r} has rows in several parts of the given split")
    return member


def _order(order: Column) -> np.ndarray:
    absent = missing(order)
    if absent.any():
        raise ValueError(f"the order of row {int(absent.argmax())} (counted from 0) is missing")
    rank, values = codes(order)
    if len(values) < 3:
        raise ValueError(f"the order column has {len(values)} distinct values; three parts need at least 3")
    return rank


def _weights(weights: Column | None) -> np.ndarray | None:
    if weights is None:
        return None
    if isinstance(weights, Categorical):
        raise ValueError(f"sample weights hold text such as {weights.categories[0]!r}; expected numbers")
    wrong = ~(np.isfinite(weights) & (weights >= 0))
    if wrong.any():
        row = int(wrong.argmax())
        raise ValueError(
            f"the sample weight of row {row} (counted from 0) is {weights[row]}; expected a finite number ≥ 0"
        )
    if not weights.any():
        raise ValueError("all sample weights are 0")
    return weights


def _check_classes(made: Dataset, target_name: str) -> None:
    """Every class needs a row (or a group) in each part that is drawn, and one training row always."""
    rule = made.rule
    drawn = rule.order is None and (rule.assignment is None or not (rule.assignment == 1).any())
    if drawn:
        pool = np.ones(len(made.target), bool) if rule.assignment is None else rule.assignment != 2
        parts = PARTS if rule.assignment is None else PARTS[:2]
        pairs = np.stack([made.target, rule.groups if rule.groups is not None else np.arange(len(pool))])[
            :, pool
        ]
        counts = np.bincount(np.unique(pairs, axis=1)[0], minlength=len(made.classes))
        unit = "row" if rule.groups is None else "group"
        where = "" if rule.assignment is None else " outside the test rows"
        needs = f"the split needs {len(parts)} {unit}s of every class, one each for {', '.join(parts)}"
        _check_counts(counts, len(parts), made.classes, (f"{target_name}: class", unit, f"{where}; {needs}"))
    counts = np.bincount(made.target[made.split(0).train], minlength=len(made.classes))
    words = f"{target_name}: class", "training row", "; it could not be learnt"
    _check_counts(counts, 1, made.classes, words)


def _check_counts(
    counts: np.ndarray, need: int, classes: tuple[str, ...], words: tuple[str, str, str]
) -> None:
    few = np.flatnonzero(counts < need)
    if len(few):
        what, unit, rest = words
        others = f" (and {counted(len(few) - 1, 'more class')} likewise)" if len(few) > 1 else ""
        raise ValueError(f"{what} {classes[few[0]]!r} has {counted(counts[few[0]], unit)}{rest}{others}")
