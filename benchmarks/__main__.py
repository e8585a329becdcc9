"""``make bench``: every benchmark that this machine can run, one after the other, as tables of ratios."""

from __future__ import annotations

import subprocess
import sys

BENCHMARKS = {
    "kernels": "the CPU kernel against F.cross_entropy and the usual eager code",
    "streaming": "streaming scores against a plain PyTorch pass for each of them",
    "training": "images per second of a study's processes, against the usual PyTorch code",
    "throughput": "runs an hour of a study, by how many run at once",
    "thresholds": "the sizes at which the CPU kernel changes its ways",
    "linear": "a linear head in blocks against F.linear and F.cross_entropy (an hour, 8 GB)",
}

for name, what in BENCHMARKS.items():
    print(f"\n{name}: {what}", flush=True)
    subprocess.run([sys.executable, "-m", f"benchmarks.{name}", *sys.argv[1:]], check=True)
