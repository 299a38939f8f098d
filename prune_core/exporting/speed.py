"""Speed and memory of checkpoints on this machine, each in a fresh process, in turn.

What is compared is measured in alternating order, round by round: whatever else the machine does
hits all of them alike.
"""

from __future__ import annotations

import contextlib
import json
import queue
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from prune_core.errors import PruneCoreError
from prune_core.progress import NONE, Progress
from prune_core.sentences import Sentence

REPEATS = 5
PROMPT_TOKENS = 128
NEW_TOKENS = 24
PATIENCE = 600.0
"""Seconds that a checkpoint may take to load, and a round to run."""

_PROBE = Path(__file__).with_name("probe.py")


class SpeedError(PruneCoreError):
    """A checkpoint could not be measured."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What is to be measured.

    Attributes:
        folder: a checkpoint that plain transformers loads.
        auto: name of the transformers class that loads it.
        model: name of the class that comes out.
        dtype: to load in.
        device: to run on.
        library_format: of compressed-tensors, where the weights are compressed.
    """

    folder: Path
    auto: str
    model: str
    dtype: str
    device: str = "cpu"
    library_format: str | None = None


class _Probe:
    """One child process that has a checkpoint loaded; see ``prune_core.exporting.probe``."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        tokens: Sequence[int],
        new_tokens: int,
        progress: Progress,
    ) -> None:
        self._progress = progress
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(_PROBE)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            cwd=checkpoint.folder,
        )
        self._lines: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()
        content = {
            **asdict(checkpoint),
            "folder": str(checkpoint.folder),
            "threads": torch.get_num_threads(),
            "tokens": list(tokens),
            "new_tokens": new_tokens,
        }
        self._write_line(json.dumps(content))

    def _write_line(self, line: str) -> None:
        assert self._process.stdin is not None
        # a process that is gone is told by what it answers
        with contextlib.suppress(OSError):
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()

    def ask(self, line: str) -> dict[str, Any]:
        """Write a line and wait for the answer."""
        self._write_line(line)
        return self.answer()

    def answer(self) -> dict[str, Any]:
        """Wait for one line, and look for a cancel meanwhile.

        Raises:
            SpeedError: the process ended, or took too long.
            Cancelled: asked for.
        """
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            self._progress.check("Cancelled while speed was measured.")
            try:
                line = self._lines.get(timeout=0.05)
            except queue.Empty:
                continue
            if line is None:
                raise self._failed()
            content: dict[str, Any] = json.loads(line)
            return content
        raise SpeedError("Measuring speed took too long; nothing was kept.")

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put(None)

    def _failed(self) -> SpeedError:
        code = self._process.wait(10)
        self._log.seek(0)
        lines = self._log.read().decode("utf-8", "replace").strip().splitlines()
        if code < 0:
            return SpeedError(
                "The process that measures speed was ended by the system; there may be too little "
                "memory for a second copy of the model."
            )
        reason = lines[-1][:200] if lines else Sentence("no reason given")
        return SpeedError("Speed could not be measured: {reason}", reason=reason)

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._log):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()


def measure_in_turn(
    checkpoints: Mapping[str, Checkpoint],
    tokens: Sequence[int],
    *,
    repeats: int = REPEATS,
    new_tokens: int = NEW_TOKENS,
    progress: Progress = NONE,
) -> dict[str, dict[str, Any]]:
    """Speed and memory of several checkpoints, in alternating order.

    Each is loaded by plain transformers in a process of its own. One round of each does not count;
    then they take turns, forward and backward: A B, B A, A B.

    Args:
        checkpoints: by name.
        tokens: of the prompt.
        repeats: rounds that count.
        new_tokens: greedy steps that decode is timed over.
        progress: (rounds done, rounds); a cancel is seen while waiting.

    Returns:
        By name: ``prefill`` and ``decode`` in tokens per second, each ``median``, ``low``,
        ``high`` and ``values`` (None where the model does not write), ``memory_loaded`` and
        ``peak_memory`` in bytes above a process that has only imported torch and transformers
        (None where the system does not say).

    Raises:
        SpeedError: a checkpoint does not load, or a process was ended.
        Cancelled: by ``progress``.
    """
    probes: dict[str, _Probe] = {}
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in checkpoints}
    total, done = len(checkpoints) * (repeats + 2), 0

    def step() -> None:
        nonlocal done
        done += 1
        progress.step(done, total)

    try:
        for name, checkpoint in checkpoints.items():
            probes[name] = _Probe(checkpoint, tokens, new_tokens, progress)
        for probe in probes.values():
            probe.answer()  # ready
            step()
        for turn in range(repeats + 1):
            for name in list(probes)[:: -1 if turn % 2 else 1]:
                numbers = probes[name].ask("round")
                if turn:
                    results[name].append(numbers)
                step()
        return {name: _summary(results[name], probes[name].ask("memory")) for name in probes}
    finally:
        for probe in probes.values():
            probe.close()


def _summary(rounds: list[dict[str, Any]], memory: Mapping[str, Any]) -> dict[str, Any]:
    summary: dict[str, Any] = {
        "memory_loaded": memory["loaded"],
        "peak_memory": memory["peak"],
    }
    for key in ("prefill", "decode"):
        values = [r[key] for r in rounds if r[key] is not None]
        summary[key] = spread(values) if values else None
    return summary


def spread(values: Sequence[float]) -> dict[str, Any]:
    """``median``, ``low``, ``high`` and the ``values`` themselves."""
    return {
        "median": statistics.median(values),
        "low": min(values),
        "high": max(values),
        "values": list(values),
    }
