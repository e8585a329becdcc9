"""The commands, and how their words become arguments."""

from __future__ import annotations

import re
from collections.abc import Iterable

from cyclopts import App, Parameter

import infoloss
from infoloss.cli.rerun import typed

__all__ = ["app", "execute", "explicit_losses"]

app = App(
    name="infoloss",
    help=infoloss.__doc__,
    version=infoloss.__version__,
    help_format="plaintext",
    # --drop a b, and no --empty-drop
    default_parameter=Parameter(consume_multiple=True, negative_iterable=()),
    result_action="return_value",
    suppress_keyboard_interrupt=False,
)
for _name, _place, _help in (
    ("compare", "comparison:compare", "Train every loss on your data, and judge them against the baseline."),
    ("demo", "comparison:demo", "Compare eight losses on scikit-learn's digits (a few minutes)."),
    ("report", "reports:report", "Write a study's report again, from its records alone."),
    ("score", "records:score", "Score a study's stored predictions with a metric of your own."),
    ("export", "records:export", "Write all runs of a study as one tidy table."),
    ("pack", "records:pack", "Pack a study into one small file, fit for git."),
    ("log", "log:log", "Log a study's runs to TensorBoard or MLflow."),
    ("verdict", "reports:verdict", "Judge scores from elsewhere: a table of loss, seed and metrics."),
    ("data", "datasets:data", "List the known data sets, or describe one, or your own."),
    ("losses", "catalogue:losses", "List the losses and regularisers, or describe one."),
    ("cite", "catalogue:cite", "The BibTeX records of losses."),
    ("check", "conformance:check", "Check a loss of your own: weights, masks, precision, gradients."),
    ("doctor", "doctor:doctor", "Versions, devices, threads, kernels and optional packages."),
):
    app.command(f"infoloss.cli.{_place}", name=_name, help=_help)

_OPTION = re.compile(r"-[a-zA-Z]|--[a-zA-Z][\w-]*(=.*)?", re.DOTALL)


def execute(tokens: Iterable[str]) -> int:
    """The exit code of a command; its errors are raised."""
    words = list(tokens)
    with typed(words):
        result = app(explicit_losses(words), exit_on_error=False, print_error=False)
    return result if isinstance(result, int) else 0


def explicit_losses(tokens: Iterable[str]) -> list[str]:
    """Each expression after ``--losses`` as ``--losses=expression``.

    An option whose values may begin with a minus, any number of them, would take the options after it too.
    An option is ``--`` and a letter, or ``-`` and a single letter: no loss is written so.

    Example:
        >>> explicit_losses(["--losses", "-0.1*entropy + kl", "focal", "--seeds", "3"])
        ['--losses=-0.1*entropy + kl', '--losses=focal', '--seeds', '3']
    """
    found: list[str] = []
    inside = False
    for token in tokens:
        if token == "--losses":
            inside = True
            found.append(token)
        elif token == "--" or _OPTION.fullmatch(token):
            inside = token.startswith("--losses=")
            found.append(token)
        elif inside:
            if found[-1] == "--losses":
                found.pop()
            found.append(f"--losses={token}")
        else:
            found.append(token)
    return found
