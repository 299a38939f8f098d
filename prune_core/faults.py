"""Fault injection: named points that kill or fail, only where ``PRUNE_FAULTS`` asks for it."""

from __future__ import annotations

import errno
import os
import signal

from prune_core.errors import PruneCoreError


def point(name: str) -> None:
    """A place where tests may end the process or fill the disk; otherwise nothing happens.

    ``PRUNE_FAULTS`` is a comma list of ``NAME=ACTION``; actions are ``kill`` (SIGKILL to this
    process) and ``disk-full`` (``OSError`` with ``ENOSPC``).

    Raises:
        OSError: action ``disk-full``.
        PruneCoreError: an action that does not exist.
    """
    wanted = os.environ.get("PRUNE_FAULTS")
    if not wanted:
        return
    for entry in wanted.split(","):
        place, _, action = entry.partition("=")
        if place.strip() != name:
            continue
        if action == "kill":
            # SIGTERM stands in on Windows, where it ends the process as abruptly
            os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))
        elif action == "disk-full":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        else:
            raise PruneCoreError(
                "PRUNE_FAULTS names no known action for {name}: {action!r}.",
                name=name,
                action=action,
            )
