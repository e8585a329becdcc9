"""Runs an hour of a study, by how many run at once: small models can share a GPU.

    python -m benchmarks.throughput [--device cuda] [--jobs 1 2 4 8] [--runs 48] [--small] [--out FILE.json]

A study of the small convnet on 10,000 images of 28×28 in 10 classes (noise: only their shape matters), two
epochs a run. The clock starts when each worker process has done its first run, which pays for starting it.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from typing import Any

import numpy as np
import torch

import infoloss as il
from benchmarks import record

CLASSES = 10


def rate(jobs: int, options: argparse.Namespace) -> float:
    """Runs an hour."""
    generator = np.random.default_rng(0)
    images = generator.integers(256, size=(options.images, 1, 28, 28), dtype=np.uint8)
    ended: list[float] = []

    def told(progress: Any) -> None:
        if progress.run is not None and progress.run.role == "final":
            ended.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as folder:
        found = il.compare(
            images,
            generator.integers(CLASSES, size=options.images),
            losses=["focal"],
            seeds=-(-(options.runs + jobs) // 2),
            folder=folder,
            progress=told,
            workers=jobs,
            device=options.device,
            model="convnet",
            tuning=False,
            training={"epochs": options.epochs, "precision": options.precision},
        )
        failed = [run["error"] for run in found.runs if run["status"] != "done"]
    if failed:
        raise RuntimeError(f"{len(failed)} runs failed, the first: {failed[0]}")
    return 3600 * (len(ended) - jobs) / (ended[-1] - ended[jobs - 1])


def main() -> None:
    parser = record.parser(__doc__, "few images")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--precision", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--jobs", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--runs", type=int, default=48)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--epochs", type=int, default=2)
    options = parser.parse_args()
    if options.small:
        options.images, options.epochs, options.runs, options.jobs = 300, 1, 4, [1, 2]
    rates = {jobs: rate(jobs, options) for jobs in options.jobs}
    about = {
        "device": torch.cuda.get_device_name() if options.device == "cuda" else options.device,
        "precision": options.precision,
        "torch": torch.__version__,
        "infoloss": il.__version__,
        "images": options.images,
        "epochs": options.epochs,
    }
    first = rates[options.jobs[0]]
    print(f"runs an hour, and against {options.jobs[0]} at once; {json.dumps(about)}")
    for jobs, found in rates.items():
        print(f"{jobs:3} at once  {found:8.0f}  {found / first:.2f}")
    record.write(options.out, {"conditions": about, "runs_an_hour": rates})


if __name__ == "__main__":
    main()
