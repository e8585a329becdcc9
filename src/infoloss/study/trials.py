"""Trials: tuning beyond the grid, with the same number of trials for every loss; validation chooses.

Trials are asked for in rounds from what is recorded of earlier ones, so that a study that was stopped goes on
as if it had not been, and the order in which workers finish changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from infoloss.catalogue import Range
from infoloss.study.search import own_space, own_values, with_parameters
from infoloss.study.tuning import mean_scores
from infoloss.training import METRICS

if TYPE_CHECKING:
    from infoloss.study.design import Arm, Design
    from infoloss.study.runs import Job

__all__ = ["Found", "Trial", "best_setting", "next_trials", "space", "tried"]

ROUND = 4
"""Trials of a loss that are asked for together: enough to keep workers busy, few enough to learn from."""
RANDOM_TRIALS = 8
"""Trials at random before the sampler models what it has seen; those of the grid count."""
DIGITS = 4
"""Significant digits of a value that is tried."""

WEIGHT_DECAY = {"adamw": Range(1e-4, 0.3, log=True), "sgd": Range(1e-6, 1e-2, log=True)}
BEYOND_THE_GRID = 3.0
"""Learning rates are looked for from the lowest of the grid divided by this to the highest times this."""

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Trial:
    """A setting of training and loss; ``weight_decay`` is None where it is the study's.

    ``number`` counts a loss's trials from 0; a setting of the grid has none.
    """

    number: int | None
    expression: str
    learning_rate: float
    weight_decay: float | None = None


@dataclass(frozen=True)
class Found:
    """The setting that validation chose, its mean validation scores, and how many trials there were."""

    trial: Trial
    validation: dict[str, float]
    trials: int


def space(design: Design, arm: Arm) -> dict[str, Range]:
    """What is tuned for a loss: learning rate, weight decay (of infoloss's training), its own parameters."""
    low, high = min(design.learning_rates), max(design.learning_rates)
    common = {"learning_rate": Range(low / BEYOND_THE_GRID, high * BEYOND_THE_GRID, log=True)}
    if "weight_decay" in design.training:
        common["weight_decay"] = WEIGHT_DECAY[design.training["optimiser"]]
    return common | own_space(arm.expression)


def tried(job: Job, arm: Arm, trial: Trial) -> Job:
    """A training job of the trial's expression and learning rate as one of the trial.

    Args:
        job: made for the trial's expression.
        arm: the loss that is tuned.
        trial: its setting; its number is part of the identity of tuning runs only.
    """
    config = dict(job.config)
    if trial.weight_decay is not None:
        config["training"] = {**config["training"], "weight_decay": trial.weight_decay}
    if job.role == "tuning":
        told = {"of": arm.expression, "number": trial.number, "weight_decay": trial.weight_decay}
        config["trial"] = told
    return replace(job, config=config)


def next_trials(records: Iterable[Record], design: Design, arm: Arm) -> list[Trial]:
    """The trials of a loss's next unfinished round; none where all are done.

    Args:
        records: of any runs of the study; the grid must be finished.
        design: gives the number of trials, the seeds and the metric.
        arm: the loss.

    Raises:
        ImportError: Optuna is missing.
    """
    mine = [record for record in records if _of(record, arm)]
    for start in range(0, design.trials, ROUND):
        numbers = range(start, min(start + ROUND, design.trials))
        known = {number: _recorded(mine, number) for number in numbers}
        if all(_finished(mine, design, trial) for trial in known.values()):
            continue
        asked = _asked(mine, design, arm, numbers) if None in known.values() else []
        # What a run was started with stands, even where another version of the sampler would ask otherwise.
        fresh = {trial.number: trial for trial in asked}
        return [known[number] or fresh[number] for number in numbers]
    return []


def best_setting(records: Iterable[Record], design: Design, arm: Arm) -> Found | None:
    """The best of the grid and all trials by the mean metric, ties by NLL, then the earlier.

    None while trials are missing, or where no setting finished every tuning seed.
    """
    mine = [record for record in records if _of(record, arm)]
    trials = [_recorded(mine, number) for number in range(design.trials)]
    if not all(_finished(mine, design, trial) for trial in trials):
        return None
    candidates = [*_grid(design, arm), *filter(None, trials)]
    scored = [(trial, _scores(mine, design, trial)) for trial in candidates]
    finished = [(trial, scores) for trial, scores in scored if scores is not None]
    if not finished:
        return None
    best, scores = max(finished, key=lambda pair: (METRICS[design.metric](pair[1]), -pair[1]["nll"]))
    return Found(best, scores, design.trials)


def _of(record: Record, arm: Arm) -> bool:
    trial = record.get("trial")
    of = trial["of"] if trial else record["loss"]
    return bool(record["role"] == "tuning" and of == arm.expression)


def _recorded(mine: Sequence[Record], number: int) -> Trial | None:
    """The trial with this number, as any of its runs has it."""
    for record in mine:
        trial = record.get("trial")
        if trial and trial["number"] == number:
            return Trial(number, record["loss"], record["learning_rate"], trial["weight_decay"])
    return None


def _grid(design: Design, arm: Arm) -> list[Trial]:
    return [Trial(None, arm.expression, rate) for rate in design.learning_rates]


def _runs(mine: Sequence[Record], design: Design, trial: Trial) -> list[Record]:
    """The runs of a setting, one for each tuning seed that is done."""
    return [
        record
        for record in mine
        if record["seed"] in design.tuning_seeds
        and (record["loss"], record["learning_rate"]) == (trial.expression, trial.learning_rate)
        and (record.get("trial") or {}).get("number") == trial.number
    ]


def _finished(mine: Sequence[Record], design: Design, trial: Trial | None) -> bool:
    return trial is not None and len(_runs(mine, design, trial)) >= len(design.tuning_seeds)


def _scores(mine: Sequence[Record], design: Design, trial: Trial) -> dict[str, float] | None:
    """Mean validation scores; None where a run diverged, failed or is missing."""
    runs = _runs(mine, design, trial)
    if len(runs) < len(design.tuning_seeds) or any(run["status"] != "done" for run in runs):
        return None
    return mean_scores([run["validation"] for run in runs])


def _asked(mine: Sequence[Record], design: Design, arm: Arm, numbers: range) -> list[Trial]:
    """What the sampler asks for, having been told the grid and all earlier rounds; always the same."""
    study, limits = _told(mine, design, arm, numbers.start), space(design, arm)
    distributions = _distributions(limits)
    asked = []
    for number in numbers:
        given = study.ask(distributions).params
        values = {name: float(f"{value:.{DIGITS}g}") for name, value in given.items()}
        own = {name: value for name, value in values.items() if name in own_space(arm.expression)}
        asked.append(
            Trial(
                number,
                with_parameters(arm.expression, own),
                values["learning_rate"],
                values.get("weight_decay"),
            )
        )
    return asked


def _told(mine: Sequence[Record], design: Design, arm: Arm, before: int) -> Any:
    """An Optuna study that knows the grid and the trials before this one."""
    try:
        import optuna
    except ImportError:
        raise ImportError("tuning by trials needs Optuna: pip install 'infoloss[tune]'") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler = optuna.samplers.TPESampler(seed=before, n_startup_trials=RANDOM_TRIALS)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    limits = space(design, arm)
    earlier = [trial for number in range(before) if (trial := _recorded(mine, number))]
    for trial in [*_grid(design, arm), *earlier]:
        values = _values(trial, design, arm)
        if values is None:
            continue
        scores = _scores(mine, design, trial)
        state = optuna.trial.TrialState.COMPLETE if scores else optuna.trial.TrialState.PRUNED
        study.add_trial(
            optuna.trial.create_trial(
                state=state,
                params=values,
                distributions=_distributions(limits),
                value=METRICS[design.metric](scores) if scores else None,
            )
        )
    return study


def _values(trial: Trial, design: Design, arm: Arm) -> dict[str, float] | None:
    """The setting as the sampler's parameters; None where a default is no number, or out of range."""
    limits = space(design, arm)
    values = {"learning_rate": trial.learning_rate, "weight_decay": trial.weight_decay}
    if trial.weight_decay is None:
        values["weight_decay"] = design.training.get("weight_decay")
    values |= own_values(trial.expression, arm.expression)
    found = {name: values.get(name) for name in limits}
    if any(v is None or not limits[name].low <= v <= limits[name].high for name, v in found.items()):
        return None
    return {name: float(value) for name, value in found.items() if value is not None}


def _distributions(limits: Mapping[str, Range]) -> dict[str, Any]:
    from optuna.distributions import FloatDistribution

    return {name: FloatDistribution(each.low, each.high, log=each.log) for name, each in limits.items()}
