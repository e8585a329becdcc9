"""``infoloss doctor``: what is installed here, and what it will use."""

from __future__ import annotations

import os
import platform
import re
import sys
from importlib.metadata import PackageNotFoundError, distribution, requires, version

import torch

import infoloss
from infoloss import kernels

__all__ = ["devices", "doctor", "extras", "lacking"]


def doctor() -> None:
    """Versions, devices, threads, kernels and optional packages."""
    from infoloss.study.engines import cores
    from infoloss.study.runs import KERNEL

    _section(
        "Versions",
        {
            "infoloss": infoloss.__version__,
            "python": f"{platform.python_version()} ({sys.executable})",
            "torch": torch.__version__,
            "numpy": version("numpy"),
            "platform": platform.platform(),
        },
    )
    _section("Devices", devices())
    threads = {"torch": f"{torch.get_num_threads()} threads", "cores": f"{cores()} for this process"}
    limits = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
    threads |= {name: os.environ[name] for name in limits if name in os.environ}
    threads["studies"] = f"{cores()} worker processes of one thread, unless --jobs is given"
    _section("Threads", threads)
    _section("Kernels", _kernels() | {"studies": f"train with {KERNEL!r}"})
    for extra, packages in extras().items():
        _section(f"Optional packages of the extra {extra!r}", {name: _installed(name) for name in packages})
        if any(_installed(name) == MISSING for name in packages):
            print(f"    install them with: pip install 'infoloss[{extra}]'\n")


MISSING = "missing"


def devices() -> dict[str, str]:
    """What studies can be trained on, and why on nothing else."""
    found = {"cpu": platform.processor() or platform.machine()}
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        found[f"cuda:{index}"] = f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB"
    if lacking("mps") is None:
        found["mps"] = "Apple GPU"
    return found | {device: f"no: {why}" for device in ("cuda", "mps") if (why := lacking(device))}


def lacking(device: str) -> str | None:
    """Why this kind of device cannot be used; None where it can."""
    if device == "cuda" and not torch.cuda.is_available():
        return "PyTorch was built without CUDA" if torch.version.cuda is None else "PyTorch finds no GPU"
    if device == "mps" and not torch.backends.mps.is_available():
        return "PyTorch finds no Apple GPU"
    return None


def extras() -> dict[str, list[str]]:
    """Optional packages by the smallest extra that installs them, as the installed distribution says."""
    found: dict[str, list[str]] = {}
    for requirement in requires("infoloss") or ():
        parts = re.fullmatch(r"([\w.-]+)[^;]*;.*extra\s*==\s*['\"]([\w-]+)['\"].*", requirement)
        if parts and parts[1] != "infoloss":
            found.setdefault(parts[2], []).append(parts[1])
    smallest_first = sorted(found, key=lambda extra: len(found[extra]))
    named: set[str] = set()
    for extra in smallest_first:
        found[extra] = sorted(set(found[extra]) - named)
        named |= set(found[extra])
    return {extra: found[extra] for extra in smallest_first if found[extra]}


def _kernels() -> dict[str, str]:
    return {
        name: what if kernels.available(name) else f"{what}; {MISSING}"
        for name, what in kernels.KERNELS.items()
    }


def _installed(name: str) -> str:
    try:
        return distribution(name).version
    except PackageNotFoundError:
        return MISSING


def _section(title: str, rows: dict[str, str]) -> None:
    print(title)
    for name, value in rows.items():
        print(f"    {name:<24} {value}")
    print()
