"""The verb ``fetch``: get or verify preset models and texts."""

from __future__ import annotations

import argparse
import sys

from prune_core.cli.verbs import Result, Verbs, new_verb
from prune_core.progress import Progress


def add(verbs: Verbs) -> None:
    """Add the verb."""
    sub = new_verb(verbs, "fetch", run, show)
    sub.add_argument("names", nargs="*", metavar="NAME", help="default: smollm2-135m and grimm")


def run(parsed: argparse.Namespace) -> Result:
    """Get or verify presets."""
    from prune_core.assets.fetch import fetch_asset
    from prune_core.assets.manifest import project_manifest

    names = parsed.names or ["smollm2-135m", "grimm"]
    manifest = project_manifest()
    shows = sys.stderr.isatty()

    def line(event: Result) -> None:
        done, total = event["done"], event["total"]
        part = f"{done / total:.0%}" if total else f"{done} {event['unit']}"
        print(f"\r\033[K{event['stage']} {part}", end="", file=sys.stderr, flush=True)

    fetched = []
    for name in names:
        path = fetch_asset(name, verify=True, progress=Progress(line if shows else None))
        asset = manifest[name]
        if shows:
            print("\r\033[K", end="", file=sys.stderr, flush=True)
        fetched.append({"name": name, "path": str(path), "license": asset.license})
    return {"fetched": fetched}


def show(result: Result) -> None:
    """Where each preset lies, for people."""
    for row in result["fetched"]:
        print(f"{row['name']}  {row['license']}  {row['path']}")
