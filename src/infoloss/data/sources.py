"""Data sets by name and from files."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from infoloss.data.assembly import dataset
from infoloss.data.columns import categorical
from infoloss.data.dataset import Dataset
from infoloss.data.features import from_matrix
from infoloss.data.names import unknown
from infoloss.data.roles import Roles, picked
from infoloss.data.splits import FRACTIONS
from infoloss.data.tables import SUFFIXES, read_table

__all__ = ["KNOWN", "load"]

KNOWN = {
    "digits": "scikit-learn, load_digits: 8×8 digits, Alpaydin & Kaynak 1998, UCI (CC BY 4.0)",
    "wine": "scikit-learn, load_wine: Aeberhard & Forina 1991, UCI (CC BY 4.0)",
    "breast_cancer": "scikit-learn, load_breast_cancer: Wolberg et al. 1995, UCI (CC BY 4.0)",
}
"""Data sets that come with scikit-learn: name → source."""


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
) -> Dataset:
    """A data set by name ("digits", "wine", "breast_cancer") or from a table (.csv, .tsv, also .gz).

    Args:
        spec: name or path.
        target: the column to predict; default: `roles.TARGETS`, else the last column.
        drop: columns to leave out.
        group: column of groups (patients, users …); no group has rows in two parts.
        order: column of times; the test rows are the latest, the validation rows the latest before them.
        sample_weight: column of weights ≥ 0, not a feature.
        split: fractions "0.6/0.2/0.2" of train/validation/test, or a column that holds these names (without
            validation rows, they are drawn from the training rows). With `test`: "0.8/0.2".
        test: a second table whose rows are the test rows.

    Returns:
        A `Dataset`; its notes say what was chosen, dropped, imputed and encoded.

    Raises:
        ValueError: for what cannot be learnt from, with place, value and what was expected.

    Example:
        >>> load("digits").classes
        ('0', '1', '2', '3', '4', '5', '6', '7', '8', '9')
    """
    drop = [drop] if isinstance(drop, str) else list(drop)
    roles = {"target": target, "groups": group, "order": order, "sample_weight": sample_weight}
    if str(spec) in KNOWN:
        given = {**roles, "drop": drop or None, "test": test}
        wrong = [option for option, value in given.items() if value is not None]
        if wrong:
            raise ValueError(f"{wrong[0]}={given[wrong[0]]!r} is for tables; {str(spec)!r} has fixed columns")
        return _known(str(spec), split)
    path = _table_path(spec)
    fractions = split if split is not None and FRACTIONS.fullmatch(split) else None
    if split is not None and fractions is None:
        if test is not None:
            raise ValueError(f"split={split!r} and test={str(test)!r} both say which rows test; give one")
        roles["parts"] = split
    table, rows = read_table(path, test=test)
    features, chosen, target_name, notes = picked(table.columns, roles, drop)
    if test is not None:
        chosen["parts"] = categorical(["train"] * rows + ["test"] * (len(chosen["target"]) - rows))
    return dataset(
        path.name.split(".")[0],
        features,
        Roles(target_name=target_name, fractions=fractions, **chosen),
        source=path.name if test is None else f"{path.name}, test rows from {Path(test).name}",
        notes=(*notes, *table.notes),
    )


def _table_path(spec: str | Path) -> Path:
    path = Path(spec)
    if path.name.lower().endswith(SUFFIXES):
        return path
    kinds = ", ".join(SUFFIXES)
    if path.exists():
        raise ValueError(f"{path}: expected a table, {kinds}")
    raise ValueError(f"{unknown('data set', str(spec), KNOWN)}, or the path of a table ({kinds})")


def _known(name: str, split: str | None) -> Dataset:
    try:
        import sklearn.datasets
    except ModuleNotFoundError:
        raise ModuleNotFoundError(f"{name} needs scikit-learn: pip install 'infoloss[study]'") from None

    bunch = getattr(sklearn.datasets, f"load_{name}")()
    features = from_matrix(bunch.data, names=tuple(map(str, bunch.feature_names)))
    labels = categorical([str(bunch.target_names[code]) for code in bunch.target])
    roles = Roles(target=labels, target_name="the target", fractions=split)
    return dataset(name, features, roles, source=KNOWN[name], notes=())
