"""Settings that every test shares: one thread, and examples that are the same in every run."""

from __future__ import annotations

import pytest
import torch
from hypothesis import settings

torch.set_num_threads(1)  # the problems are small, and the suite may run in several processes
# without a deadline: the first example of a test pays for imports
settings.register_profile("infoloss", deadline=None, derandomize=True, max_examples=60)
settings.load_profile("infoloss")


def pytest_sessionstart(session: pytest.Session) -> None:
    """Before pytest-xdist starts its processes for the whole suite."""
    config = session.config
    processes = 0 if hasattr(config, "workerinput") else getattr(config.option, "numprocesses", None)
    if processes and config.args_source is pytest.Config.ArgsSource.TESTPATHS:
        from compiling import compile_all

        if (terminal := config.pluginmanager.get_plugin("terminalreporter")) is not None:
            terminal.write_line("compiling the CPU kernel, once for all processes")
        compile_all(processes)
