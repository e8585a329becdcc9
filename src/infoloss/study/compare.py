"""``compare``: losses on the user's data, or in the user's own training, from Python."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass, replace
from math import isfinite
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, overload

import torch

from infoloss.data import Collection, Dataset, from_arrays, load
from infoloss.study.analysis import Analysis, analyse
from infoloss.study.design import Design, DesignError, settled
from infoloss.study.engines import Engine, Serial, Workers, cores
from infoloss.study.functions import FunctionMaterials, function_design, function_runs
from infoloss.study.materials import Materials
from infoloss.study.plan import Plan, Training
from infoloss.study.plan_errors import PlanError, nearest
from infoloss.study.session import Finished, Progress, Report, Session
from infoloss.study.slices import WHOLE, Slice
from infoloss.study.store import Store, StoreError, read_design, records
from infoloss.study.verdict_table import VerdictTable

if TYPE_CHECKING:
    from infoloss.study.collection import Comparisons

__all__ = ["Comparison", "DesignError", "Finished", "Progress", "StoreError", "compare", "engine_of", "run"]

_ARRAYS = ("name", "groups", "order", "sample_weight", "test", "split")


@dataclass(frozen=True, eq=False)
class Comparison:
    """A study that was carried out: its folder and its analysis."""

    folder: Path
    analysis: Analysis

    @property
    def verdict(self) -> VerdictTable:
        """A table of the verdicts: text where it is printed, HTML in a notebook."""
        return VerdictTable(self.analysis)

    @property
    def runs(self) -> list[dict[str, Any]]:
        """The records of all runs: role, loss, seed, learning rate, status, validation scores, cost, …"""
        return list(records(self.folder)[0].values())

    def report(self, folder: Path | str | None = None) -> Path:
        """Writes the report, into the study's folder unless told otherwise; the path of its HTML page."""
        from infoloss.study.report import render

        return render(self.analysis, self.folder if folder is None else Path(folder))

    def log(self, to: str) -> int:
        """Logs the training runs to "tensorboard:DIR" or "mlflow:URI" (extra ``log``); how many were new."""
        from infoloss.study.log import log

        return log(self.folder, to)

    def __repr__(self) -> str:
        return f"{self.verdict}\nRecords: {self.folder}"

    def _repr_html_(self) -> str:
        return self.verdict._repr_html_()


@overload
def compare(
    X_or_train: list[Any] | tuple[Any, ...] | Collection, y: None = None, **options: Any
) -> Comparisons: ...
@overload
def compare(X_or_train: Any, y: Any = None, **options: Any) -> Comparison: ...


def compare(
    X_or_train: Any,
    y: Any = None,
    *,
    losses: Sequence[Any] | Mapping[str, Any] | None = None,
    seeds: int | Sequence[int] | None = None,
    folder: Path | str | None = None,
    progress: Report | None = None,
    workers: int | Engine | None = None,
    shard: str | None = None,
    **options: Any,
) -> Comparison | Comparisons:
    """Compares losses on your data, or in your own training.

    Every loss gets the same splits, initial weights and batches for each seed, and the same learning rates to
    choose from; the test rows are read once a run. What the folder already has is not run again.

    Args:
        X_or_train: (N, P) features (array, tensor, data frame) or (N, C, H, W) images; or a ``Dataset``, or
            what ``infoloss.data.load`` takes ("digits", a path); or a list of these, or an
            ``infoloss.data.collection``, for a study of each and what they say together. Or your training:
            ``train(criterion, seed)`` returning (validation_logits, validation_target, test_logits,
            test_target), or a mapping with these names and perhaps ``test_rows``, which tells test examples
            of different seeds apart. The global generators are seeded before each call. Where it takes
            ``learning_rate``, it is tuned.
        y: (N,) labels, or the name of the column that holds them.
        losses: expressions or terms, or a mapping from labels to them; eight that suit the data unless given.
        seeds: how many, or which; 20 for tables under 10,000 rows and 5 otherwise unless given. With the
            option ``until_decided`` they are the first of those that are added as long as need be.
        folder: where records are kept; named after data and study, in the working directory, unless given.
        progress: called with a ``Progress`` after every run, and about once a second within long ones.
        workers: processes, one a core unless given; or an engine, as ``infoloss.study.cluster.Cluster()`` for
            a Ray cluster. Your own training runs in this process.
        shard: "2/4" does the second of four slices of the runs; other processes do the others in this folder.
        **options: fields of ``Plan`` (model, training, tuning, metric, margins, baseline, device), and for
            arrays those of ``infoloss.data.from_arrays`` (name, groups, order, sample_weight, test, split).

    Returns:
        A ``Comparison``; of several data sets ``Comparisons``, whose ``[name]`` is the one of a data set.

    Raises:
        PlanError: names a wrong option, its value, what was expected and the nearest right name.
        ValueError: data that cannot be learnt from.
        DesignError: the folder holds another study.
        StoreError: the folder is in use, or cannot be written.

    Example:
        >>> import tempfile
        >>> from sklearn.datasets import load_iris
        >>> X, y = load_iris(return_X_y=True)
        >>> found = compare(X, y, losses=["focal"], seeds=2, tuning=False, training={"epochs": 2}, workers=1,
        ...                 folder=tempfile.mkdtemp())
        >>> [verdict.question for verdict in found.analysis.verdicts]
        ['labels', 'probabilities', 'probabilities after temperature scaling']
        >>> sorted({run["loss"] for run in found.runs if run["role"] == "final"})
        ['cross_entropy(label_smoothing=0.0)', 'focal(gamma=2.0)']
        >>> several = compare(["wine", "breast_cancer"], losses=["focal"], seeds=1, tuning=False,
        ...                   training={"epochs": 2}, workers=1, folder=tempfile.mkdtemp())
        >>> list(several.analysis.members), len(several["wine"].analysis.verdicts)
        (['breast_cancer', 'wine'], 3)
    """
    arrays = {name: options.pop(name) for name in _ARRAYS if name in options}
    _refuse_unknown(options)
    plan = Plan.of(place="compare", losses=losses, seeds=seeds, **options)
    if callable(X_or_train):
        if y is not None or arrays:
            extra = "y" if y is not None else next(iter(arrays))
            raise PlanError([f"compare: {extra}: your own training brings its data itself; leave it out"])
        settings = sorted(plan.training.model_fields_set - {"learning_rate"})
        own = [
            *sorted({"model", "device"} & plan.model_fields_set),
            *(f"training.{name}" for name in settings),
        ]
        if own:
            raise PlanError([f"compare: {', '.join(own)}: your own training decides that; leave it out"])
        if not isinstance(workers, int | None):
            raise PlanError(["compare: workers: your own training runs in this process: no engine"])
        return _of_function(X_or_train, plan, folder, progress, shard)
    if y is None and (sets := _several(X_or_train)):
        from infoloss.study.collection import compared

        if arrays:
            raise PlanError(
                [f"compare: {next(iter(arrays))} is for arrays; give infoloss.data.from_arrays(…)"]
            )
        return compared(plan, sets, folder, progress, workers=workers, shard=shard)
    dataset = _dataset(X_or_train, y, arrays)
    path = Path(settled(plan, dataset).name if folder is None else folder)
    found = run(plan, dataset, path, progress, workers=workers, shard=shard, command=_CALL)
    return Comparison(path, found)


_CALL = "infoloss.compare(X, y, losses=[…], seeds=…)"


def run(
    plan: Plan,
    dataset: Dataset | None = None,
    folder: Path | str | None = None,
    progress: Report | None = None,
    *,
    workers: int | Engine | None = None,
    time_limit: float | None = None,
    retry_failed: bool = False,
    shard: str | None = None,
    command: str = "",
) -> Analysis:
    """Does what is missing of a study, and analyses what is there.

    The same call again trains nothing; more losses or seeds train what is new. Losses and seeds that the
    folder already has stay in the study: what was tried is reported.

    Args:
        plan: as asked for.
        dataset: what is learnt from; the plan's own source unless given.
        folder: of the store; a name from data and design, in the working directory, unless given.
        progress: called after every run, and about once a second within long ones.
        workers: processes; one a core unless given, 1 runs in this process. Or an engine, left open.
        time_limit: seconds after which no run is begun; the study stays incomplete and can be resumed.
        retry_failed: run again what failed for another reason than divergence.
        shard: "2/4" does the second of four slices of the runs.
        command: that reruns the study, for the report.

    Raises:
        PlanError: the plan does not fit the data.
        DesignError: the folder holds another study.
        StoreError: the folder is in use, or cannot be written.
    """
    if dataset is None:
        dataset = plan.data.dataset()
    design = settled(plan, dataset)
    design = replace(design, command=command, notes=_notes(design, dataset))
    path = Path(design.name if folder is None else folder)
    part = _slice(shard, design)
    devices = design.training.get("devices_per_run", 1)
    with Store.opened(path, part) as store, engine_of(workers, design.device, devices) as engine:

        def session(at: Design, left: float | None, again: bool) -> Session:
            return Session(store, engine, Materials(dataset, at), progress, left, again)

        return _carried_out(store, design, session, time_limit, retry_failed)


def _of_function(
    train: Any, plan: Plan, folder: Path | str | None, progress: Report | None, shard: str | None
) -> Comparison:
    design = function_design(train, plan, command="infoloss.compare(train, losses=[…], seeds=…)")
    path = Path(design.name if folder is None else folder)
    with Store.opened(path, _slice(shard, design)) as store:
        engine = Serial(function_runs(train))

        def session(at: Design, left: float | None, again: bool) -> Session:
            return Session(store, engine, FunctionMaterials(at), progress, left, again)

        return Comparison(path, _carried_out(store, design, session, None, False))


def _carried_out(
    store: Store,
    design: Design,
    session: Callable[[Design, float | None, bool], Session],
    time_limit: float | None,
    retry_failed: bool,
) -> Analysis:
    """One sitting, or one after the other while seeds are added; the analysis of the last."""
    started, following = monotonic(), _opened(store, design)
    while True:
        at, left = following, None
        if time_limit is not None:
            left = max(0.0, time_limit - (monotonic() - started))
        session(at, left, retry_failed).carry_out()
        analysis, retry_failed = analyse(store.folder), False
        more = at.at_the_next_look()
        if more is None or not analysis.complete or _settled(analysis):
            return analysis
        following = _opened(store, more)


def _settled(analysis: Analysis) -> bool:
    """Whether every verdict is decided; one about a difference that is not finite never will be."""
    return all(
        verdict.outcome != "undecided" or not isfinite(verdict.difference) for verdict in analysis.verdicts
    )


def _opened(store: Store, design: Design) -> Design:
    """The design, extended by what the folder already has, and written there."""
    with store.gate():
        old = read_design(store.folder)
        if old is not None:
            design = design.extended(Design.from_json(old))
        store.write_design(design.to_json())
    return design


def _slice(shard: str | None, design: Design) -> Slice:
    try:
        part = WHOLE if shard is None else Slice.parse(shard)
    except ValueError as error:
        raise PlanError([f"shard: {error}"]) from None
    if design.trials and not part.whole:
        raise PlanError(
            ["shard: each round of trials needs the one before; leave the shard or the trials out"]
        )
    return part


def engine_of(
    workers: int | Engine | None, device: str, devices_per_run: int = 1
) -> AbstractContextManager[Engine]:
    """What does the runs: worker processes, or this one where one is enough; an engine given stays open.

    Raises:
        PlanError: no worker, or devices that this machine lacks.
    """
    if not isinstance(workers, int | None):
        return nullcontext(workers)
    each = devices_per_run
    if workers is not None and workers < 1:
        raise PlanError([f"workers: {workers!r}: should be 1 or more"])
    if device != "cpu" and not getattr(torch, device).is_available():
        raise PlanError([f"device: {device!r}: this machine has none that torch can use"])
    if device == "cuda" and torch.cuda.device_count() < each:
        raise PlanError([f"training.devices_per_run: {each}: this machine has {torch.cuda.device_count()}"])
    if (workers or cores() // each) <= 1:
        return closing(Serial())
    return closing(Workers(workers, device=device, devices_per_run=each))


def _notes(design: Design, dataset: Dataset) -> tuple[str, ...]:
    first = design.seeds[0]
    split = dataset.split_notes(dataset.split(first))
    prefix = f"split of seed {first}: " if dataset.resampled else ""
    return (*design.notes, *(prefix + note for note in split))


def _several(X: Any) -> Sequence[Dataset] | Collection | None:
    """The data sets where there are several; None of features, and of one data set."""
    if isinstance(X, Collection):
        return X
    if isinstance(X, list | tuple) and all(isinstance(each, str | Path | Dataset) for each in X):
        return [_dataset(each, None, {}) for each in X]
    return None


def _dataset(X: Any, y: Any, arrays: Mapping[str, Any]) -> Dataset:
    if not isinstance(X, str | Path | Dataset):
        return from_arrays(X, y, **arrays)
    if arrays:
        raise PlanError(
            [f"compare: {next(iter(arrays))} is for arrays; infoloss.data.load takes such options"]
        )
    if isinstance(X, Dataset):
        if y is not None:
            raise PlanError(["compare: y: a Dataset has its labels"])
        return X
    return load(X, target=y)


def _refuse_unknown(options: Mapping[str, Any]) -> None:
    known = (*_ARRAYS, *(name for name in Plan.model_fields if name not in ("data", "collection")))
    for name in options:
        if name not in known:
            hint = (
                f' give training={{"{name}": …}}' if name in Training.model_fields else nearest(name, known)
            )
            raise PlanError([f"compare: {name}: unknown option;{hint} (known: {', '.join(known)})"])
