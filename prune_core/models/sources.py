"""Sources: what a user may type to name a model, as types. No torch: the web process uses it."""

from __future__ import annotations

import difflib
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prune_core.assets.manifest import project_manifest
from prune_core.errors import SourceError
from prune_core.sentences import Sentence

MAX_LENGTH = 4096
_PART = r"[A-Za-z0-9][\w.-]{0,95}"
_HUB_ID = re.compile(rf"^{_PART}(/{_PART})?$", re.ASCII)
_REVISION = re.compile(r"^[0-9a-f]{40}$")
_DRIVE = re.compile(r"^[A-Za-z]:")

TINY_TITLES = {
    "tiny-gpt2": "Tiny GPT-2 (random weights)",
    "tiny-llama": "Tiny Llama (random weights)",
    "tiny-opt": "Tiny OPT (random weights)",
    "tiny-neox": "Tiny GPT-NeoX (random weights)",
    "tiny-bert": "Tiny BERT (random weights)",
    "tiny-t5": "Tiny T5 (random weights)",
}
DEFAULT_PRESET = "smollm2-135m"
ANY_FOLDER = "PRUNE_ANY_FOLDER"
"""Set while the command line runs: in the environment, so that its worker processes have it too."""


@dataclass(frozen=True, slots=True)
class Preset:
    """A model of the manifest, or a tiny one made on the spot."""

    name: str

    @property
    def text(self) -> str:
        """Canonical text."""
        return self.name


@dataclass(frozen=True, slots=True)
class HubId:
    """A repository on the Hugging Face hub; ``revision`` is a commit hash, None for the newest."""

    repo: str
    revision: str | None = None

    @property
    def text(self) -> str:
        """Canonical text."""
        return f"hub:{self.repo}" + (f"@{self.revision}" if self.revision else "")


@dataclass(frozen=True, slots=True)
class LocalFolder:
    """A folder with safetensors, resolved and under an allowed root."""

    path: Path

    @property
    def text(self) -> str:
        """Canonical text."""
        return str(self.path)


@dataclass(frozen=True, slots=True)
class GgufFile:
    """A GGUF file, resolved and under an allowed root."""

    path: Path

    @property
    def text(self) -> str:
        """Canonical text."""
        return str(self.path)


Source = Preset | HubId | LocalFolder | GgufFile


def mode() -> str:
    """``PRUNE_MODE``: ``local`` (default), ``team`` or ``public``.

    Raises:
        SourceError: any other value; guessing could open what was meant to be closed.
    """
    setting = os.environ.get("PRUNE_MODE", "").strip().lower() or "local"
    if setting not in ("local", "team", "public"):
        raise SourceError("PRUNE_MODE must be local, team or public.")
    return setting


def preset_names() -> tuple[str, ...]:
    """Names of all preset models, the default one first."""
    return (*(asset.name for asset in project_manifest().of_kind("model")), *TINY_TITLES)


def source_choices() -> list[dict[str, Any]]:
    """Preset models for a chooser.

    Returns:
        Dicts with ``name``, ``title``, ``size`` (bytes to fetch, 0 = made here), ``parameters``
        (0 = a few thousand), ``license``, ``license_note``, ``provenance``, ``provenance_url``
        and ``description`` (key of a text in the language catalogue).
    """
    rows = [
        {
            "name": asset.name,
            "title": asset.title,
            "size": asset.source.size,
            "parameters": asset.parameters,
            "license": asset.license,
            "license_note": asset.license_note,
            "provenance": asset.provenance,
            "provenance_url": asset.provenance_url,
            "description": f"preset.{asset.name}",
        }
        for asset in project_manifest().of_kind("model")
    ]
    made_here = {
        "size": 0,
        "parameters": 0,
        "license": "Apache-2.0",
        "license_note": "",
        "provenance": "Random weights, made on the spot by this project.",
        "provenance_url": "",
    }
    rows += [
        {"name": name, "title": title, **made_here, "description": f"preset.{name}"}
        for name, title in TINY_TITLES.items()
    ]
    return rows


@contextmanager
def any_folder() -> Iterator[None]:
    """While open, local models may lie anywhere: for a command line, whose user could read them
    all the same. Pages, which serve others too, never open this.
    """
    before = os.environ.get(ANY_FOLDER)
    os.environ[ANY_FOLDER] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[ANY_FOLDER]
        else:
            os.environ[ANY_FOLDER] = before


def anywhere() -> bool:
    """True if local models may lie in any folder; see :func:`any_folder`."""
    return os.environ.get(ANY_FOLDER) == "1"


def allowed_roots() -> tuple[Path, ...]:
    """Folders under which local models may lie.

    ``PRUNE_MODEL_ROOTS`` (separated like ``PATH``) or else the home folder, the working directory
    and the system's folder for temporary files.
    """
    setting = os.environ.get("PRUNE_MODEL_ROOTS")
    if setting:
        roots = [Path(part) for part in setting.split(os.pathsep) if part.strip()]
    else:
        roots = [Path("~"), Path.cwd(), Path(tempfile.gettempdir())]
    resolved = []
    for root in roots:
        try:
            resolved.append(root.expanduser().resolve())
        except (OSError, RuntimeError):  # HOME unknown, or a loop of links
            continue
    return tuple(resolved)


def shown(text: str, limit: int = 80) -> str:
    """What a user typed, fit to be echoed: no control characters, not too long."""
    clean = "".join(c if c.isprintable() else "?" for c in text[: limit + 1])
    return clean if len(clean) <= limit else clean[:limit] + "…"


def allowed_path(text: str) -> Path:
    """Resolve a path and insist that it lies under an allowed root, links followed.

    The refusal reads the same whether the target exists or not, so that it tells nothing about
    the disk.

    Raises:
        SourceError: outside, or not a path at all.
    """
    refusal = SourceError(
        "{text} is not under an allowed folder; set PRUNE_MODEL_ROOTS to the folder that holds "
        "your models.",
        text=shown(text),
    )
    if "\0" in text or len(text) > MAX_LENGTH or text.startswith(("\\\\", "//")):
        raise refusal
    if _DRIVE.match(text) and (os.name != "nt" or text[2:3] not in ("/", "\\")):
        raise refusal
    try:
        path = Path(text).expanduser().resolve()
    except (OSError, RuntimeError, ValueError):
        raise refusal from None
    if not anywhere() and not any(path.is_relative_to(root) for root in allowed_roots()):
        raise refusal
    return path


def parse_source(text: str) -> Source:
    """Read what a user typed to name a model.

    Accepts a preset's name, ``hub:OWNER/NAME[@COMMIT]``, a bare ``OWNER/NAME[@COMMIT]``, a folder
    or a ``.gguf`` file; what is both an existing folder and a hub id is the folder.
    ``parse_source(source.text)`` gives the same source again.

    Raises:
        SourceError: nothing of the kind, not allowed in this mode, or not under an allowed folder.
    """
    text = text.strip()
    if not text:
        raise SourceError("Name a model: {known:list}, a hub id or a folder.", known=preset_names())
    if text in preset_names():
        return Preset(text)
    if text.startswith("hub:"):
        return _hub(text.removeprefix("hub:"))
    if _looks_like_path(text) or _is_folder(text):
        return _local(text)
    if "/" in text and _HUB_ID.match(text.partition("@")[0]):
        return _hub(text)
    near = difflib.get_close_matches(text[:MAX_LENGTH].lower(), preset_names(), n=1, cutoff=0.5)
    if near:
        hint = Sentence("did you mean {near}?", near=near[0])
    else:
        hint = Sentence("presets are {known:list}.", known=preset_names())
    raise SourceError("There is no model called {text}; {hint}", text=shown(text), hint=hint)


def _looks_like_path(text: str) -> bool:
    return (
        text.startswith(("/", "\\", "~", "."))
        or text.lower().endswith(".gguf")
        or "\0" in text
        or "\\" in text
        or text.count("/") > 1
        or _DRIVE.match(text) is not None
        or len(text) > MAX_LENGTH
    )


def _is_folder(text: str) -> bool:
    """A folder of that name lies in the working directory; guests do not learn whether."""
    try:
        return mode() == "local" and Path(text).is_dir()
    except (OSError, ValueError):  # no name that the system takes
        return False


def _hub(text: str) -> HubId:
    repo, at, revision = text.partition("@")
    if not _HUB_ID.match(repo) or ".." in repo or "--" in repo:
        raise SourceError(
            "{text} is no hub id; write hub:OWNER/NAME, for example hub:openai/gpt2.",
            text=shown(text),
        )
    if at and not _REVISION.match(revision):
        raise SourceError(
            "The revision of {repo} must be a commit hash of 40 hexadecimal digits.",
            repo=shown(repo),
        )
    access = mode()
    if access == "public":
        raise SourceError("Only presets can be loaded here; choose one of the list.")
    if access == "team":
        orgs = {o.strip() for o in os.environ.get("PRUNE_HUB_ORGS", "").split(",") if o.strip()}
        if repo.partition("/")[0] not in orgs or "/" not in repo:
            raise SourceError(
                "Hub models of that owner cannot be loaded here; the operator lists the allowed "
                "owners in PRUNE_HUB_ORGS."
            )
    return HubId(repo, revision or None)


def _local(text: str) -> LocalFolder | GgufFile:
    if mode() != "local":
        raise SourceError("Folders and files cannot be loaded here; choose a preset of the list.")
    path = allowed_path(text)
    if path.suffix.lower() == ".gguf":
        if not path.is_file():
            raise SourceError("There is no GGUF file {text}.", text=shown(text))
        return GgufFile(path)
    if not path.is_dir():
        raise SourceError(
            "There is no model folder {text}; name a folder with config.json and safetensors, or "
            "a .gguf file.",
            text=shown(text),
        )
    return LocalFolder(path)
