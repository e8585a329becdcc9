"""Settings that every test shares: one thread, and examples that are the same in every run."""

from __future__ import annotations

import torch
from hypothesis import settings

torch.set_num_threads(1)  # the problems are small, and the suite may run in several processes
# without a deadline: the first example of a test pays for imports
settings.register_profile("infoloss", deadline=None, derandomize=True, max_examples=60)
settings.load_profile("infoloss")
