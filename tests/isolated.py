"""An environment of its own that holds torch, transformers and what those need, and nothing else.

Nothing is fetched: the packages of this environment are linked into a new one, found through the
metadata that they were installed with.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

LEFT_OUT = ("prune_core", "streamlit", "plotly", "pandas", "gguf", "compressed_tensors")

PERPLEXITY = """
import json, math, sys
from importlib.util import find_spec
found = [name for name in json.loads(sys.argv[2]) if find_spec(name)]
assert not found, found
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
torch.set_num_threads(1)
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32).eval()
windows, total, count = json.loads(sys.stdin.read()), 0.0, 0
with torch.no_grad():
    for window in windows:
        tokens = torch.tensor([window])
        logits = model(input_ids=tokens).logits[0, :-1].double().log_softmax(-1)
        total -= float(logits.gather(1, tokens[0, 1:, None]).sum())
        count += len(window) - 1
    written = model.generate(torch.tensor([windows[0][:8]]), max_new_tokens=4, do_sample=False)
text = AutoTokenizer.from_pretrained(sys.argv[1]).decode(written[0])
print(json.dumps({
    "perplexity": math.exp(total / count),
    "parameters": sum(p.numel() for p in model.parameters()),
    "text": text,
}))
"""
"""What anybody would write; it refuses to run where more than torch and transformers is there."""


def environment(folder: Path) -> Path:
    """Make it.

    Args:
        folder: is made.

    Returns:
        Its interpreter.
    """
    venv.create(folder, with_pip=False, symlinks=os.name != "nt")
    scripts = "Scripts" if os.name == "nt" else "bin"
    library = Path(
        subprocess.run(
            [folder / scripts / "python", "-I", "-c", _WHERE],
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()
    )
    for name in _closure(["torch", "transformers"]):
        for part in metadata.distribution(name).files or ():
            top = part.parts[0]
            source = Path(str(metadata.distribution(name).locate_file(top)))
            target = library / top
            if top not in ("..", "__pycache__") and source.exists() and not target.exists():
                target.symlink_to(source)
    return folder / scripts / "python"


_WHERE = "import sysconfig; print(sysconfig.get_path('purelib'))"


def _closure(names: Sequence[str]) -> set[str]:
    """Installed distributions that these need, themselves included."""
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = canonicalize_name(waiting.pop())
        if name in found:
            continue
        try:
            needed = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue  # of another platform
        found.add(name)
        for text in needed:
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                waiting.append(requirement.name)
    return found


def perplexity(python: Path, folder: Path, windows: Sequence[Sequence[int]]) -> dict[str, object]:
    """``perplexity``, ``parameters`` and a written ``text`` of a checkpoint, in that environment.

    Raises:
        subprocess.CalledProcessError: it does not load there.
    """
    done = subprocess.run(
        [python, "-I", "-c", PERPLEXITY, folder, json.dumps(LEFT_OUT)],
        input=json.dumps([list(window) for window in windows]),
        capture_output=True,
        text=True,
        cwd=folder,
        env={k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "PRUNE_"))},
        check=False,
    )
    if done.returncode:
        sys.stderr.write(done.stderr)
        done.check_returncode()
    found: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return found
