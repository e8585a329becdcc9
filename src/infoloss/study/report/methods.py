"""The paragraph that says what was done, fit for a paper, and the one that says what it means."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from infoloss.data.names import counted
from infoloss.study.grammar import listed

from .bibliography import Source, loss_keys, method_keys
from .wording import ALTERED, GROUPS, alpha_of, equivalence_level, metric, plain, questions, seed_count

if TYPE_CHECKING:
    from infoloss.study.analysis import Analysis


def scope(analysis: Analysis) -> tuple[str, ...]:
    """What the verdict is about, and what it is not."""
    if not analysis.verdicts:
        return ("There is no verdict: it takes a baseline and at least one other loss with paired seeds.",)
    covers = _covered(analysis)
    level = equivalence_level(alpha_of(analysis))
    several = (
        "Labels, probabilities as they come and probabilities after temperature scaling are questions of "
        "their own; a loss may win one and lose another.",
    )
    ends = (
        "; the names of learning curves stand at their ends" if any(x.curve for x in analysis.losses) else ""
    )
    return (
        f"The verdicts are about this data source ({analysis.data.get('name', 'the data')}) and this "
        f"recipe: what to expect of these losses {_reach(covers)}. Nothing here says that a loss is better "
        "on other data, with another model or another budget.",
        f"The intervals cover: {'; '.join(covers)}." if covers else _no_interval(analysis),
        "Better or worse means that the interval adjusted for all verdicts together (Holm) excludes zero. "
        f"Equivalent means that the {level} interval lies within the margin{_margins(analysis)}, which was "
        "fixed before running. Undecided means neither: the data do not tell.",
        *(several if len(questions(analysis)) > 1 else ()),
        f"Losses stand in the order of the study, the baseline first, in every table and figure{ends}.",
    )


def _covered(analysis: Analysis) -> list[str]:
    """What the intervals cover, as far as there are any."""
    known = [verdict for verdict in analysis.verdicts if all(map(math.isfinite, verdict.interval))]
    return list(dict.fromkeys(verdict.covers for verdict in known if not verdict.identical))


def _no_interval(analysis: Analysis) -> str:
    if all(verdict.identical for verdict in analysis.verdicts):
        return "All predictions were identical."
    return "There is no interval yet: the runs show no spread, and it takes more seeds to measure one."


def _reach(covers: list[str]) -> str:
    """How far the narrowest of the intervals carries."""
    if any(words.startswith("seeds only") for words in covers):
        return "with other seeds on these same rows; new data may differ by more than the intervals say"
    if any(words.startswith("seeds and test") for words in covers):
        return "with other seeds, on new test rows from the same source, trained on these same rows"
    return "on new data from the same source, trained in the same way"


def _margins(analysis: Analysis) -> str:
    asked = dict.fromkeys(key for _, key in questions(analysis))
    parts = [
        f"±{plain(width)} {metric(key).difference_unit} in {_named(key)}".replace("  ", " ")
        for key in asked
        if math.isfinite(width := analysis.margins.get(key, math.nan))
    ]
    return f" ({listed(parts)})" if parts else ""


def _named(key: str) -> str:
    return f"{metric(key).name} after temperature scaling" if key.endswith("_scaled") else metric(key).name


def paragraph(analysis: Analysis, catalogue: Mapping[str, Source]) -> str:
    """The methods paragraph; citation keys in brackets are those of references.bib."""
    cited, methods = loss_keys(analysis, catalogue), method_keys(analysis)
    sentences = [_compared(analysis, cited), _data(analysis), *_training(analysis), _tuning(analysis)]
    if analysis.verdicts:
        sentences.append(_inference(analysis, methods))
    if "guo2017" in methods:
        sentences.append("Temperatures were fitted on the validation rows [guo2017].")
    sentences.append(_versions(analysis))
    return " ".join(filter(None, sentences))


def _compared(analysis: Analysis, cited: Mapping[str, str]) -> str:
    others = [loss for loss in analysis.losses if not loss.baseline]
    names = [_cite(loss.label, [cited[name] for name in loss.entries if name in cited]) for loss in others]
    if not names:
        return f"We trained one loss, {analysis.baseline}."
    return (
        f"We compared {counted(len(others), 'loss')} with the baseline {analysis.baseline}: {listed(names)}."
    )


def _cite(words: str, keys: list[str]) -> str:
    return f"{words} [{', '.join(dict.fromkeys(keys))}]" if keys else words


def _data(analysis: Analysis) -> str:
    data = analysis.data
    sizes = [f"{data[key]} {key}" for key in ("rows", "features", "classes") if key in data]
    described = f" ({listed(sizes)})" if sizes else ""
    altered = f" Training rows were altered on purpose: {data[ALTERED]}." if ALTERED in data else ""
    return f"The data were {data['name']}{described}.{altered}" if "name" in data else ""


def _training(analysis: Analysis) -> list[str]:
    said, given = [], analysis.protocol
    if "model" in given:
        epochs = f" for {given['epochs']} epochs" if "epochs" in given else ""
        optimiser = f" with {given['optimiser']}" if "optimiser" in given else ""
        said.append(f"The model was a {given['model']}, trained{epochs}{optimiser}.")
    said += [f"{key.capitalize()}: {given[key]}." for key in ("split", "selection") if key in given]
    if any(loss.curve for loss in analysis.losses):
        said.append(
            "For each seed all losses shared the split, initial weights and batches; "
            f"{_seeds(analysis)} were run for each loss and the test rows were scored once per run."
        )
    return said


def _seeds(analysis: Analysis) -> str:
    return seed_count([len(loss.seeds) for loss in analysis.losses]).removeprefix("n = ")


def _tuning(analysis: Analysis) -> str:
    if not analysis.tuned:
        return "No hyper-parameter was tuned, so the study gives no verdict on rank."
    grid = sorted({rate for loss in analysis.losses for rate in loss.tuning})
    if not grid:
        return ""
    rates = listed([plain(rate) for rate in grid])
    return (
        f"Every loss, the baseline included, had the same learning rates to choose from ({rates}), chosen by "
        f"validation {_named(analysis.primary_metric)} with seeds of their own.{_trials(analysis)}"
    )


def _trials(analysis: Analysis) -> str:
    trials = max((loss.search.trials for loss in analysis.losses if loss.search), default=0)
    if not trials:
        return ""
    return (
        f" Beyond it every loss had {counted(trials, 'trial')} over learning rate, weight decay and its own "
        "parameters, chosen in the same way by a tree-structured Parzen estimator (Optuna)."
    )


def _inference(analysis: Analysis, methods: list[str]) -> str:
    covers = _covered(analysis)
    asked = listed([f"{GROUPS.get(about, about)} ({metric(key).name})" for about, key in questions(analysis)])
    nadeau = " [nadeau2003]" if "nadeau2003" in methods else ""
    variance = f" covering {'; '.join(covers)} [bouthillier2021]{nadeau}" if covers else ""
    return (
        f"We judged paired differences from the baseline in {asked} by intervals{variance}, adjusted over "
        f"all {len(analysis.verdicts)} verdicts [holm1979]; equivalence was judged by two one-sided tests "
        f"at {plain(100 * alpha_of(analysis))} % [schuirmann1987] with margins fixed in "
        f"advance{_margins(analysis)}.{_looks(analysis)}"
    )


def _looks(analysis: Analysis) -> str:
    if "looks" not in analysis.protocol:
        return ""
    return (
        f" {analysis.protocol['looks'].capitalize()}; each look spends error rate in proportion to its new "
        "seeds [lan1983, kim1987]."
    )


def _versions(analysis: Analysis) -> str:
    named = {"infoloss": "infoloss", "torch": "PyTorch", "numpy": "NumPy", "python": "Python"}
    parts = [
        f"{name} {analysis.environment[key]}" for key, name in named.items() if key in analysis.environment
    ]
    return f"Software: {listed(parts)}." if parts else ""
