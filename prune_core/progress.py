"""Progress and cancel of long work."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Emit = Callable[[dict[str, Any]], None]

Poll = Callable[[], bool]
