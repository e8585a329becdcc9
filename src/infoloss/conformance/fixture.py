"""The check as a pytest fixture, for projects with losses of their own: ``conforms``.

In the project's ``conftest.py``::

    pytest_plugins = ["infoloss.conformance.fixture"]

and in a test::

    def test_my_loss(conforms):
        conforms(my_loss)
        conforms(my_other_loss, without=["empty batch"])
"""

from __future__ import annotations

from collections.abc import Callable, Collection

import pytest

from infoloss.conformance import check
from infoloss.conformance.subject import Loss

__all__ = ["conforms"]


@pytest.fixture
def conforms() -> Callable[..., None]:
    """A function that fails the test with a line for each law that a loss breaks."""

    def held(loss: Loss, *, without: Collection[str] = ()) -> None:
        failed = [str(finding) for finding in check(loss, without=without) if finding.outcome == "failed"]
        if failed:
            pytest.fail("\n".join(failed), pytrace=False)

    return held
