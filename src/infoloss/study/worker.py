"""The worker's end of ``Workers``: jobs in by standard input, outcomes out by standard output."""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
from typing import IO

from infoloss.study.frames import read_frame, write_frame

__all__ = ["main"]


def main() -> None:
    """Serves jobs until the parent closes the pipe, and ends at once when it does, even inside a run."""
    out = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    # Whatever a library prints must not end up between two frames.
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    incoming: queue.Queue[tuple[bytes, bytes]] = queue.Queue()
    threading.Thread(target=_receive, args=(sys.stdin.buffer, incoming), daemon=True).start()
    _work(incoming, out)


def _receive(stream: IO[bytes], incoming: queue.Queue[tuple[bytes, bytes]]) -> None:
    try:
        while True:
            incoming.put((read_frame(stream), read_frame(stream)))
    except (EOFError, OSError):
        os._exit(0)


def _work(incoming: queue.Queue[tuple[bytes, bytes]], out: IO[bytes]) -> None:
    import torch
    from safetensors.numpy import load

    from infoloss.study.runs import attempted, paced, performed
    from infoloss.training.memory import keep_freed_memory

    torch.set_num_threads(1)
    keep_freed_memory()
    arrays = {}

    def told(epoch: int, epochs: int) -> None:
        write_frame(out, json.dumps({"epoch": epoch, "epochs": epochs}).encode())
        out.flush()

    while True:
        config, sent = incoming.get()
        if sent:
            arrays = load(sent)
        outcome = attempted(performed, json.loads(config), arrays, paced(told))
        write_frame(out, json.dumps(outcome.fields).encode())
        write_frame(out, outcome.predictions or b"")
        out.flush()
