"""Models from the Hugging Face hub: only safetensors and texts, checked before the weights come."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

from prune_core.assets.cache import CANCELLED
from prune_core.assets.fetch import offline
from prune_core.errors import PruneCoreError, SourceError
from prune_core.models.checks import read_config
from prune_core.models.sources import HubId, shown
from prune_core.progress import NONE, Progress

PATTERNS = ["*.safetensors", "*.json", "*.txt", "*.model", "*.jinja"]
_IGNORED = ["*/*"]  # ONNX exports and the like; the model itself lies at the top


def hub_folder(source: HubId, *, progress: Progress = NONE) -> Path:
    """Bring a hub repository into the hub's own cache and return its folder.

    Its ``config.json`` comes first and is checked before the weights are asked for. Honors
    ``HF_HUB_OFFLINE``, ``HF_ENDPOINT`` and ``PRUNE_OFFLINE``.

    Raises:
        SourceError: no network, no such repository or revision, or no access to it.
        ModelFileError, UnknownArchitectureError: its configuration is refused.
        Cancelled: by ``progress``.
    """
    progress.stage("fetch", unit="bytes").step(0, 0)
    folder = _snapshot(source, ["config.json", "adapter_config.json"], _bar(progress.silent()))
    read_config(folder)
    return _snapshot(source, PATTERNS, _bar(progress))


def _bar(progress: Progress) -> type[Any]:
    """A progress bar for the hub's library that draws nothing, reports bytes and can say stop."""
    from huggingface_hub.utils.tqdm import tqdm

    fetching = progress.stage("fetch", unit="bytes")

    class Bar(tqdm):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options | {"disable": False, "file": io.StringIO()})

        def update(self, n: float | None = 1) -> bool | None:
            progress.check(CANCELLED)
            drawn: bool | None = super().update(n)
            if self.unit == "B":
                fetching.step(int(self.n), int(self.total or 0))
            return drawn

    return Bar


def _snapshot(source: HubId, patterns: list[str], bar: type[Any]) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    name = shown(source.repo)
    options: dict[str, Any] = {
        "allow_patterns": patterns,
        "ignore_patterns": _IGNORED,
        "tqdm_class": bar,
    }
    try:
        return Path(
            snapshot_download(
                source.repo,
                revision=source.revision,
                local_files_only=offline() or bool(os.environ.get("TRANSFORMERS_OFFLINE")),
                **options,
            )
        )
    except PruneCoreError:
        raise
    except GatedRepoError as error:
        raise SourceError(
            "{name} is gated on the hub; accept its terms there and log in with `hf auth login`.",
            name=name,
        ) from error
    except RevisionNotFoundError as error:
        raise SourceError("The hub's {name} has no such revision.", name=name) from error
    except RepositoryNotFoundError as error:
        raise SourceError("The hub has no model {name}, or it is private.", name=name) from error
    except Exception as error:  # offline, no network, a full disk: each HTTP library its own errors
        raise SourceError(
            "{name} is not in the local hub cache and could not be fetched from the hub; check "
            "the network, or use a preset or a local folder.",
            name=name,
        ) from error
