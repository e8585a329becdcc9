"""A study's training on CPUs: images per second of all its processes together, and of Keras.

    python -m benchmarks.training [--keras PYTHON] [--processes N] [--rounds 5] [--small] [--out FILE.json]

The network is that of the Keras comparison of cross entropy with KL divergence on CIFAR-10 (batches of 250,
Adam); the images are noise, since only their shape matters here. Ways to train it:

    infoloss, float32       as a study does: a process a core, one thread each
    infoloss, bfloat16      the same under autocast
    PyTorch                 the usual code, as many processes: nn.Dropout, contiguous images, F.cross_entropy
    Keras, as published     one process with all threads: the published script with the TensorFlow backend
    Keras, a process a core the same script on one thread each, as a study would run it

PYTHON has Keras 3 and TensorFlow (``python -m venv there; there/bin/pip install keras tensorflow-cpu``);
without it Keras is left out. Every process warms up, waits for the others, and then trains; a round runs all
ways one after the other, so that what else the machine does hits all of them. Beside images per second stand
images per second of processor time, of all processes and threads: other work on the machine moves it less.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

import infoloss as il
from benchmarks import record
from infoloss.models import build
from infoloss.study.engines import cores
from infoloss.training import Classifier, Rows, Settings, fit, normalisation
from infoloss.training.memory import keep_freed_memory

BATCH, CLASSES, SHAPE = 250, 10, (3, 32, 32)
KERAS = Path(__file__).with_name("training_keras.py")


@dataclass(frozen=True)
class Way:
    """How it is done: by which script, and whether in a process a core or in one with all threads."""

    name: str
    work: str
    keras: bool = False
    together: bool = True


WAYS = (
    Way("infoloss, float32", "float32"),
    Way("infoloss, bfloat16", "bfloat16"),
    Way("PyTorch", "usual"),
    Way("Keras, as published", "float32", keras=True, together=False),
    Way("Keras, a process a core", "float32", keras=True),
    Way("Keras, a process a core, bfloat16", "bfloat16", keras=True),
)


def rows(images: int) -> Rows:
    generator = torch.Generator().manual_seed(0)
    features = torch.randint(256, (images, *SHAPE), dtype=torch.uint8, generator=generator)
    return Rows(features, torch.randint(CLASSES, (images,), generator=generator))


def studied(precision: str, train: Rows, epochs: int) -> None:
    """By the code that a study runs."""
    network = build("keras_cifar10", classes=CLASSES, input_shape=SHAPE, seed=0)
    model = Classifier(
        network, classes=CLASSES, normalisation=normalisation("auto", train.features), precision=precision
    )
    settings = Settings(learning_rate=1e-3, weight_decay=0, epochs=epochs, batch_size=BATCH)
    result = fit(model, il.Criterion("cross_entropy"), train, None, settings=settings, seed=0)
    assert result.error is None


def usual_network() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(3, 32, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(0.5)),
        *(nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(0.5)),
        *(nn.Flatten(), nn.Linear(2304, 256), nn.ReLU(), nn.Linear(256, CLASSES)),
    )


def usual(train: Rows, epochs: int) -> None:
    """By the usual code; the images are floats already."""
    features, model = train.features / 255, usual_network()
    optimiser = torch.optim.Adam(model.parameters())
    for _ in range(epochs):
        for batch in torch.randperm(len(features)).split(BATCH):
            usual_step(model, optimiser, features[batch], train.target[batch])


def usual_step(model: nn.Module, optimiser: torch.optim.Optimizer, images: Tensor, target: Tensor) -> None:
    optimiser.zero_grad()
    F.cross_entropy(model(images), target).backward()
    optimiser.step()


def worked(work: str, images: int, epochs: int) -> None:
    """One process: warms up, says so, waits, trains, and says how long that took, by clock and by CPU."""
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    if work != "usual":
        keep_freed_memory()
    train = rows(images)
    trained = usual if work == "usual" else partial(studied, work)
    trained(train, 1)
    print("ready", flush=True)
    sys.stdin.readline()
    started, used = time.perf_counter(), time.process_time()
    trained(train, epochs)
    print(time.perf_counter() - started, time.process_time() - used, flush=True)


def rate(way: Way, options: argparse.Namespace) -> tuple[float, float]:
    """Images per second of all processes together: by the clock, and of processor time."""
    count, threads = (options.processes, 1) if way.together else (1, options.processes)
    python = [options.keras, str(KERAS)] if way.keras else [sys.executable, "-m", "benchmarks.training"]
    command = [*python, f"--work={way.work}", f"--images={options.images}", f"--epochs={options.epochs}"]
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")
    environment = {**os.environ, **dict.fromkeys(names, str(threads)), "TF_CPP_MIN_LOG_LEVEL": "3"}
    # TensorFlow speaks on the error stream; what it says is shown where it fails.
    with tempfile.TemporaryFile("w+") as errors:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": errors, "text": True}
        processes = [subprocess.Popen(command, env=environment, **pipes) for _ in range(count)]
        try:
            seconds = together(processes)
        except ValueError:
            errors.seek(0)
            raise RuntimeError(f"{way.name} failed: {errors.read()}") from None
        finally:
            for process in processes:
                process.kill()
                process.communicate()
    images = options.images * options.epochs
    return sum(images / clock for clock, _ in seconds), images * count / sum(used for _, used in seconds)


def together(processes: Sequence[subprocess.Popen[str]]) -> list[tuple[float, float]]:
    """Seconds of each process, of the clock and of its CPU: all begin when the last is ready.

    Raises:
        ValueError: a process that ended.
    """
    for process in processes:
        if process.stdout.readline() != "ready\n":
            raise ValueError("not ready")
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    spoken = [process.stdout.readline().split() for process in processes]
    return [(float(clock), float(used)) for clock, used in spoken]


def conditions(options: argparse.Namespace) -> dict[str, Any]:
    about = {
        "torch": torch.__version__,
        "infoloss": il.__version__,
        "python": platform.python_version(),
        "processor": processor(),
        "processes": options.processes,
        "batch": BATCH,
    }
    if options.keras:
        about |= json.loads(subprocess.check_output([options.keras, str(KERAS), "--versions"], text=True))
    return about


def processor() -> str:
    """Its name, and whether it multiplies in bfloat16 (x86 Linux)."""
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.exists():
        return platform.processor()
    fields = dict(
        map(str.strip, line.split(":", 1)) for line in cpuinfo.read_text().splitlines() if ":" in line
    )
    found = [flag for flag in ("avx512_bf16", "amx_bf16") if flag in fields.get("flags", "").split()]
    return f"{fields.get('model name', platform.processor())} ({', '.join(found) or 'no bfloat16'})"


def line(name: str, rates: list[tuple[float, float]], peer: list[tuple[float, float]]) -> dict[str, Any]:
    (low, _), (middle, cpu), (high, _) = np.quantile(rates, [0.25, 0.5, 0.75], axis=0)
    ratio, cpu_ratio = np.median(np.array(rates) / np.array(peer), axis=0)
    spread = {"lower": low, "median": middle, "upper": high, "ratio": ratio, "n": len(rates)}
    return {"way": name, **spread, "cpu_median": cpu, "cpu_ratio": cpu_ratio}


def main() -> None:
    parser = record.parser(__doc__, "few images")
    parser.add_argument("--keras", metavar="PYTHON", help="a Python with keras and tensorflow")
    parser.add_argument("--processes", type=int, default=cores())
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--work", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.small:
        options.images, options.epochs, options.rounds = 2 * BATCH, 1, 1
    if options.work:
        worked(options.work, options.images, options.epochs)
        return
    ways = [way for way in WAYS if options.keras or not way.keras]
    rates: dict[str, list[tuple[float, float]]] = {way.name: [] for way in ways}
    for _ in range(options.rounds):
        for way in ways:
            rates[way.name].append(rate(way, options))
    peer = "Keras, as published" if options.keras else "PyTorch"
    found, about = [line(name, rates[name], rates[peer]) for name in rates], conditions(options)
    print(
        f"images per second, all processes together: median [quartiles], ratio to {peer}; "
        f"images per second of CPU time, ratio; {json.dumps(about)}"
    )
    for each in found:
        quartiles = f"{each['median']:7.0f} [{each['lower']:.0f}, {each['upper']:.0f}]"
        print(f"{each['way']:<34} {quartiles:<24} {each['ratio']:.2f}", end="  ")
        print(f"{each['cpu_median']:7.0f} {each['cpu_ratio']:.2f}  n = {each['n']}")
    record.write(options.out, {"conditions": about, "table": found})


if __name__ == "__main__":
    main()
