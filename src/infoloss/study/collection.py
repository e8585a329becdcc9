"""A study over several data sets: one of its own for each, in its own folder, and what they say together.

FOLDER/collection.json     the data sets and the folder of each
FOLDER/<data set>/         a study, as of that data set alone
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import length_hint
from pathlib import Path
from time import monotonic

from infoloss.data import Collection, Dataset
from infoloss.study.across import Across, across
from infoloss.study.analysis import Analysis, analyse
from infoloss.study.canonical import sha256
from infoloss.study.compare import Comparison, engine_of, run
from infoloss.study.design import Design, default_losses, device, settled
from infoloss.study.engines import Engine
from infoloss.study.members import members, read_register, write_register
from infoloss.study.plan import Data, Loss, Plan
from infoloss.study.session import Progress, Report
from infoloss.study.store import read_design

__all__ = [
    "CollectionAnalysis",
    "Comparisons",
    "analyse_collection",
    "collection_name",
    "compared",
    "datasets",
    "member_design",
    "member_folder",
    "run_collection",
]


@dataclass(frozen=True, eq=False)
class CollectionAnalysis:
    """The analyses of the data sets in the order of their names, their folders, and each question over all.

    ``folder`` is that of the whole, or the file that it is packed into.
    """

    folder: Path
    members: Mapping[str, Analysis]
    folders: Mapping[str, str]
    questions: tuple[Across, ...]
    command: str

    @property
    def baseline(self) -> str:
        return next(iter(self.members.values())).baseline

    @property
    def complete(self) -> bool:
        return all(analysis.complete for analysis in self.members.values())


@dataclass(frozen=True, eq=False)
class Comparisons:
    """A study over several data sets that was carried out: its folder and its analysis."""

    folder: Path
    analysis: CollectionAnalysis

    def __getitem__(self, name: str) -> Comparison:
        """The study of a data set."""
        return Comparison(self.folder / self.analysis.folders[name], self.analysis.members[name])

    @property
    def verdict(self) -> str:
        """The verdicts over the data sets, as a Markdown table."""
        from infoloss.study.report.collection import summary
        from infoloss.study.report.table import markdown

        return markdown(summary(self.analysis))

    def report(self, folder: Path | str | None = None) -> Path:
        """Writes all reports, into the study's folder unless told otherwise; the path of the page of all."""
        from infoloss.study.report.collection import render_all

        return render_all(self.analysis, self.folder if folder is None else Path(folder))

    def log(self, to: str) -> int:
        """Logs the training runs, as ``Comparison.log``."""
        from infoloss.study.log import log

        return log(self.folder, to)

    def __repr__(self) -> str:
        return f"{self.verdict}\nRecords: {self.folder}"

    _repr_markdown_ = __repr__


def compared(
    plan: Plan,
    sets: Sequence[Dataset] | Collection,
    folder: Path | str | None,
    progress: Report | None,
    *,
    workers: int | Engine | None,
    shard: str | None,
) -> Comparisons:
    """``infoloss.compare`` of several data sets."""
    path = Path(collection_name(plan, sets) if folder is None else folder)
    call = "infoloss.compare([…], losses=[…], seeds=…)"
    found = run_collection(plan, sets, path, progress, workers=workers, shard=shard, command=call)
    return Comparisons(path, found)


def datasets(plan: Plan) -> Iterable[Dataset]:
    """The data sets of a plan's collection, each loaded when its turn comes."""
    return map(_loaded, plan.collection or (plan.data,))


def _loaded(member: Data) -> Dataset:
    try:
        return member.dataset()
    except ValueError as error:
        if str(error).startswith(member.source):
            raise
        raise ValueError(f"{member.source}: {error}") from error


def collection_name(plan: Plan, sets: Iterable[Dataset]) -> str:
    """A folder's name, from the designs of all data sets."""
    names = [member_design(plan, dataset).name for dataset in sets]
    return f"infoloss-{len(names)}-data-sets-{sha256(names)[:8]}"


def run_collection(
    plan: Plan,
    sets: Iterable[Dataset],
    folder: Path | str,
    progress: Report | None = None,
    *,
    workers: int | Engine | None = None,
    time_limit: float | None = None,
    retry_failed: bool = False,
    shard: str | None = None,
    command: str = "",
) -> CollectionAnalysis:
    """Does what is missing of a study over several data sets, one after the other, and analyses it.

    Every data set gets the same losses: the plan's, or the eight that suit even classes. Data sets that the
    folder already has stay in the study.

    Args:
        plan: as asked for; its own data are not read.
        sets: what is learnt from.
        folder: of the whole.
        progress, workers, time_limit, retry_failed, shard, command: as ``infoloss.study.compare.run``; the
            time limit is for all data sets together.

    Raises:
        PlanError: the plan does not fit one of the data sets.
        ValueError: two data sets of one name.
        StoreError: the folder is in use, or cannot be written.
    """
    root, started = Path(folder), monotonic()
    with engine_of(workers, device(plan), plan.training.devices_per_run) as engine:
        for number, dataset in enumerate(sets, 1):
            name, place = _registered(root, dataset, command)
            left = None if time_limit is None else max(0.0, time_limit - (monotonic() - started))
            run(
                _alike(plan),
                dataset,
                root / place,
                None if progress is None else _placed(progress, name, number, length_hint(sets)),
                workers=engine,
                time_limit=left,
                retry_failed=retry_failed,
                shard=shard,
                command=command,
            )
    return analyse_collection(root)


def analyse_collection(folder: Path | str) -> CollectionAnalysis:
    """The analysis of the study over several data sets in a folder, finished or not, or in a packed file.

    Raises:
        StoreError: there is none.
    """
    found = members(Path(folder))
    names = sorted(found.archives, key=str.casefold)
    analyses = {name: analyse(found.archives[name]) for name in names}
    return CollectionAnalysis(Path(folder), analyses, found.folders, across(analyses), found.command)


def _alike(plan: Plan) -> Plan:
    """The plan with losses that do not depend on the data set."""
    if plan.losses is not None:
        return plan
    return plan.model_copy(update={"losses": tuple(Loss(expression=text) for text in default_losses([1, 1]))})


def member_design(plan: Plan, dataset: Dataset) -> Design:
    """The design of one data set of the collection.

    Raises:
        PlanError: the plan does not fit it.
    """
    return settled(_alike(plan), dataset)


def member_folder(name: str) -> str:
    """The folder of a data set inside that of the collection."""
    return "".join(c if c.isalnum() or c in "-_" else "-" for c in name)


def _registered(root: Path, dataset: Dataset, command: str) -> tuple[str, str]:
    """Name and folder of a data set in the collection; written down before its first run."""
    written = read_register(root)
    name = str(dataset.name)
    place = member_folder(name)
    known = read_design(root / place)
    if known is not None and known["data"]["sha256"] != dataset.sha256:
        raise ValueError(
            f"two data sets are called {name!r}, or {name!r} has changed since {root / place} was begun; "
            "give them names of their own, or choose another folder"
        )
    write_register(root, {"folders": {**written["folders"], name: place}, "command": command})
    return name, place


def _placed(progress: Report, name: str, number: int, total: int) -> Report:
    """Progress that says which of the data sets it is about."""

    def told(made: Progress) -> None:
        progress(replace(made, data=name, data_set=number, data_sets=total))

    return told
