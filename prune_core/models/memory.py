"""The memory guard: how much a model will need and how much there is, before anything is read."""

from __future__ import annotations

from pathlib import Path

from prune_core.errors import MemoryGuardError
from prune_core.sentences import Sentence

SHARE = 0.8  # of what is free; the rest is for the web process and surprises
DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
_WINDOW_TOKENS = 512


def available_bytes() -> int | None:
    """Free memory: the machine's or, if smaller, what the control group leaves; None if unknown."""
    values = [value for value in (_machine_bytes(), _group_bytes()) if value is not None]
    return min(values) if values else None


def _machine_bytes() -> int | None:
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        pass
    return None


def _group_bytes() -> int | None:
    pairs = (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        (
            "/sys/fs/cgroup/memory/memory.limit_in_bytes",
            "/sys/fs/cgroup/memory/memory.usage_in_bytes",
        ),
    )
    for limit_path, used_path in pairs:
        try:
            limit = int(Path(limit_path).read_text(encoding="ascii"))
            used = int(Path(used_path).read_text(encoding="ascii"))
        except (OSError, ValueError):  # absent, or "max"
            continue
        return max(0, limit - used)
    return None


_PARTS = {
    "weights": "weights {size:.1f}",
    "working copy": "working copy {size:.1f}",
    "logits": "logits {size:.1f}",
    "conversion": "conversion {size:.1f}",
}


def needed_bytes(
    parameters: int, *, dtype: str, vocabulary: int, converting: bool = False
) -> dict[str, int]:
    """Bytes that loading and one working copy will take, by purpose.

    Args:
        parameters: number of weights.
        dtype: of the loaded weights.
        vocabulary: tokens; the logits of one window are (512, vocabulary), kept twice.
        converting: a GGUF file is turned into floats first, which needs a quarter more.
    """
    weights = parameters * DTYPE_BYTES[dtype]
    logits = _WINDOW_TOKENS * vocabulary * 4 * 2
    peak = parameters * 4 // 4 if converting else 0
    return {"weights": weights, "working copy": weights, "logits": logits, "conversion": peak}


def guard_memory(
    title: str,
    parameters: int,
    *,
    dtype: str,
    vocabulary: int,
    converting: bool = False,
    available: int | None = None,
) -> None:
    """Refuse a model that would not fit, with the numbers.

    Args:
        title: named in the refusal.
        parameters: number of weights.
        dtype: of the loaded weights.
        vocabulary: tokens.
        converting: a GGUF file is turned into floats first.
        available: bytes; measured unless given.

    Raises:
        MemoryGuardError: more than 80 % of the free memory would be needed.
    """
    free = available_bytes() if available is None else available
    if free is None:
        return
    limit = SHARE * free
    need = needed_bytes(parameters, dtype=dtype, vocabulary=vocabulary, converting=converting)
    total = sum(need.values())
    if total <= limit:
        return
    parts = [Sentence(_PARTS[what], size=size / 1e9) for what, size in need.items() if size]
    half = needed_bytes(parameters, dtype="bfloat16", vocabulary=vocabulary, converting=converting)
    fits = dtype == "float32" and sum(half.values()) <= limit
    advice = Sentence("bfloat16 would fit" if fits else "choose a smaller model")
    raise MemoryGuardError(
        "{title} needs about {total:.1f} GB ({parts:list}) but only {limit:.1f} GB may be used "
        "here (80 % of the {free:.1f} GB free); {advice}.",
        title=title,
        total=total / 1e9,
        parts=parts,
        limit=limit / 1e9,
        free=free / 1e9,
        advice=advice,
    )
