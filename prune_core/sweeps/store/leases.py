"""Who works on a cell, and whether it still lives: leases that outlast neither process nor boot."""

from __future__ import annotations

import os
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

LEASE = 60.0
"""Seconds a claim holds without a sign of life; a worker gives one every quarter of it."""

MAX_LEASE = 3600.0


@dataclass(frozen=True, slots=True)
class Worker:
    """A process that works on cells.

    Attributes:
        place: machine, boot and process namespace; processes of one place see each other.
        pid: process id.
        born: when the kernel started it: process ids are used again.
        token: parts workers of one process.
    """

    place: str
    pid: int
    born: str
    token: str

    @classmethod
    def here(cls) -> Worker:
        """A new worker of this process."""
        return cls(place(), os.getpid(), _process_start(os.getpid()), uuid.uuid4().hex[:8])

    def __str__(self) -> str:
        return f"{self.place}/{self.pid}/{self.born}/{self.token}"

    @classmethod
    def parse(cls, text: str) -> Worker | None:
        """Read :meth:`__str__`; None for anything else."""
        parts = text.split("/")
        if len(parts) != 4 or not parts[1].isdecimal():
            return None
        return cls(parts[0], int(parts[1]), parts[2], parts[3])

    @property
    def is_gone(self) -> bool:
        """True if it is known to have ended; False where that cannot be told from here."""
        here = place()
        if not here or self.place != here:
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except OSError:
            return False
        return bool(self.born) and _process_start(self.pid) != self.born


def boot() -> str:
    """What the kernel calls this boot; empty where it has no name for it."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def clock() -> float:
    """Seconds that no change of the wall clock moves, comparable between processes of a boot.

    Where boots have no name the wall clock stands in.
    """
    if not boot():
        return time.time()
    which = getattr(time, "CLOCK_BOOTTIME", None)
    return time.clock_gettime(which) if which is not None else time.monotonic()


def place() -> str:
    """Names boot and process namespace; empty where they have no names."""
    try:
        space = Path("/proc/self/ns/pid").readlink().name
    except OSError:
        space = ""
    name = boot()
    return f"{name}-{space.strip('pid:[]')}" if name and space else ""


def _process_start(pid: int) -> str:
    """Start of a process in clock ticks since boot; empty where that is not known."""
    try:
        # the command may hold spaces and brackets: fields are counted after its last bracket
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""
