"""What both benchmarks share: the header, medians and the page of results."""

from __future__ import annotations

import argparse
import datetime
import os
import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

PACKAGES = ("torch", "transformers", "numpy", "streamlit")


def header(title: str) -> list[str]:
    """Date, machine and versions, as lines of Markdown."""
    processor = platform.processor() or platform.machine()
    for line in _lines("/proc/cpuinfo"):
        if line.startswith("model name"):
            processor = line.partition(":")[2].strip()
            break
    busy = f"; load {os.getloadavg()[0]:.1f} when it began" if hasattr(os, "getloadavg") else ""
    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    return [
        f"## {title}",
        "",
        f"{datetime.date.today().isoformat()}; {os.cpu_count()} cores, {processor}, "
        f"{memory_total() / 1e9:.0f} GB{busy}; {platform.system()}, "
        f"Python {platform.python_version()}, {versions}.",
        "",
    ]


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text(encoding="utf-8").splitlines()
    except OSError:
        return []


def memory_total() -> float:
    """Bytes of memory in the machine; 0 where it is not told."""
    for line in _lines("/proc/meminfo"):
        if line.startswith("MemTotal"):
            return float(line.split()[1]) * 1024
    return 0.0


def resident(pid: int | str = "self", *, peak: bool = False) -> float:
    """Resident bytes of a process (Linux), or the most it ever had."""
    wanted = "VmHWM" if peak else "VmRSS"
    for line in _lines(f"/proc/{pid}/status"):
        if line.startswith(wanted):
            return float(line.split()[1]) * 1024
    return float("nan")


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that ``share`` of all values do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, -(-int(share * 1000) * len(ordered) // 1000) - 1))]


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A Markdown table."""
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    return [*lines, *("| " + " | ".join(row) + " |" for row in rows), ""]


def options(description: str) -> argparse.Namespace:
    """``--write FILE`` and ``--append``."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--write", type=Path, metavar="FILE", help="also write the results here")
    parser.add_argument("--append", action="store_true", help="after what the file holds")
    return parser.parse_args()


INTRODUCTION = """# Benchmarks

Measured, not promised. Absolute times belong to the machine named above each table; ratios are
taken within one run, against a yardstick measured in turn with the thing itself, and carry over
better. To measure again:

```
python -m tests.benchmarks.core --write docs/benchmarks.md
python -m tests.benchmarks.methods --write docs/benchmarks.md --append
python -m tests.benchmarks.export --write docs/benchmarks.md --append
python -m tests.benchmarks.heads --write docs/benchmarks.md --append
python -m tests.benchmarks.structure --write docs/benchmarks.md --append
python -m tests.benchmarks.sweeps --write docs/benchmarks.md --append
python -m tests.benchmarks.budget --write docs/benchmarks.md --append
python -m tests.benchmarks.browser --write docs/benchmarks.md --append
```
"""


def publish(lines: Sequence[str], chosen: argparse.Namespace) -> None:
    """Print, and write where asked."""
    text = "\n".join(lines)
    print(text)
    if chosen.write is None:
        return
    path: Path = chosen.write
    path.parent.mkdir(parents=True, exist_ok=True)
    before = path.read_text(encoding="utf-8") if chosen.append and path.is_file() else INTRODUCTION
    path.write_text(before.rstrip() + "\n\n" + text.rstrip() + "\n", encoding="utf-8")
