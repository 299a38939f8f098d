"""Goldens: is every number the same to the last bit after code was moved?

A tool for development and no test: floats differ between kinds of processors and versions of
torch, so a record is only worth comparing with on the machine, or the kind of machine, it was made
on. Record before a change and compare after each step of it, from the checkout::

    python -m tests.goldens record tests/fixtures/goldens.json --full ../goldens-full.json
    python -m tests.goldens compare tests/fixtures/goldens.json   # which cases differ
    python -m tests.goldens compare ../goldens-full.json          # and in which fields

``--real`` takes SmolLM2-135M (fetched if needed) in place of the tiny families. Only the command
line is used, so it does not matter where in prune_core anything lives. What may rightly vary
(:data:`LEFT_OUT`) is not compared. The rest is in two parts: numbers, and words (:data:`WORDS`:
recipes as they are given back, fingerprints, protocols, sentences), so that a new wording can be
told from a wrong number; ``--numbers`` looks at numbers alone.
"""

from __future__ import annotations

import argparse
import contextlib
import fnmatch
import hashlib
import io
import json
import os
import platform
import re
import runpy
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any
from unittest import mock

from tests.golden_cases import TEXTS, Case, tiny_cases
from tests.golden_real import REAL, real_cases

ROOT = Path(__file__).resolve().parents[1]
Leaves = dict[str, Any]
"""Every value of a case's results by its path, such as ``0.result.protocol.tokens``."""

LEFT_OUT = frozenset(
    (
        *("seconds", "tokens_per_second", "prefill", "decode", "peak_memory"),
        *(f"{model}_{what}" for model in ("dense", "zeros") for what in ("prefill", "decode")),
        *("dense_peak_memory", "zeros_peak_memory", "folder", "store", "seconds_left"),
        *("threads", "torch", "transformers", "transformers_version", "python"),
    )
)
"""Fields that differ from run to run or from machine to machine: times, places, versions."""

WORDS = frozenset(
    (
        *("recipe", "recipe.json", "fingerprint", "model_fingerprint", "text_fingerprint"),
        *("protocol", "card", "README.md", "said", "error", "sentence", "shrunk_refused"),
        *("LICENSE", "tokenizer.json", "tokenizer_config.json"),
    )
)
"""Fields that repeat what was asked or say something in words: compared, but apart from numbers."""

HEADLINES = ("perplexity", "similarity", "sparsity", "nonzero", "divergence", "difference")

ENVIRONMENT = {
    # one thread everywhere: sums are then always in the same order
    **dict.fromkeys(
        ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS"), "1"
    ),
    "OMP_WAIT_POLICY": "PASSIVE",
    "TOKENIZERS_PARALLELISM": "false",
    # the same instructions on any x86 processor that has AVX2, as far as the libraries obey
    "ATEN_CPU_CAPABILITY": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "MKL_CBWR": "COMPATIBLE",
    "OPENBLAS_CORETYPE": "Haswell",
    "PYTHONHASHSEED": "0",  # of the processes that are started from here
    "TRANSFORMERS_VERBOSITY": "error",
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
}


def main() -> int:
    """Record or compare; returns the exit code: 1 where something differs."""
    parser = argparse.ArgumentParser(prog="python -m tests.goldens", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    record = verbs.add_parser("record", help="run the cases and write what they gave")
    record.add_argument("file", metavar="FILE", help="digests; the other part's are kept in it")
    record.add_argument("--full", metavar="FILE", help="whole results too, for compare")
    compare = verbs.add_parser("compare", help="run the cases and name those that differ")
    compare.add_argument("file", metavar="FILE", help="digests or whole results")
    compare.add_argument("--numbers", action="store_true", help="words may differ")
    compare.add_argument(
        "--ignore", action="append", default=[], metavar="FIELD", help="needs whole results"
    )
    compare.add_argument("--to", metavar="FILE", help="whole results in place of a run")
    for sub in (record, compare):
        sub.add_argument("--real", action="store_true", help=f"{REAL} in place of the tiny ones")
        sub.add_argument("--only", metavar="PATTERN", help="cases such as 'tiny-opt: import*'")
        sub.add_argument(
            "--reverse",
            action="store_true",
            help="last case first: a case that then differs depends on those before it",
        )
    parsed = parser.parse_args()
    cases = list(real_cases() if parsed.real else tiny_cases())
    if parsed.only:
        cases = [case for case in cases if fnmatch.fnmatch(case.name, parsed.only)]
    if parsed.reverse:
        cases.reverse()
    if not cases:
        parser.error(f"--only {parsed.only!r} names none of the cases.")
    if parsed.verb == "record":
        return _record(parsed, cases)
    return _compare(parsed, cases)


# ---- running ---------------------------------------------------------------------------------


def results(cases: Sequence[Case], *, real: bool) -> dict[str, Leaves]:
    """Run cases, each in a folder of its own, and give what is compared of them by name.

    Args:
        cases: not empty.
        real: they share a cache, in which the fetched files lie; otherwise each has a new one, so
            that none depends on what another left on disk.
    """
    assets = _assets() if real else None
    for name in [name for name in os.environ if name.startswith(("PRUNE_", "TRANSFORMERS_"))]:
        if name != "PRUNE_ASSETS_DIR":
            del os.environ[name]
    os.environ.update(ENVIRONMENT)
    sys.path.insert(0, str(ROOT))
    gathered, start = {}, time.monotonic()
    with tempfile.TemporaryDirectory(prefix="goldens-", ignore_cleanup_errors=True) as scratch:
        cache = Path(scratch) / "cache"
        if assets is not None:
            cache.mkdir()
            (cache / "assets").symlink_to(assets, target_is_directory=True)
        for number, case in enumerate(cases):
            folder = Path(scratch) / f"case-{number}"
            folder.mkdir()
            os.environ["PRUNE_CACHE_DIR"] = str(cache if real else folder / "cache")
            began = time.monotonic()
            with contextlib.chdir(folder):
                gathered[case.name] = _leaves(_run_case(case, folder), Path(scratch))
            if real or sys.stderr.isatty():
                _say(f"{number + 1}/{len(cases)} {case.name} {time.monotonic() - began:.1f} s")
            if not real:  # thousands of small files otherwise
                _remove(folder)
    _say(f"{len(cases)} cases in {time.monotonic() - start:.0f} s")
    return gathered


def _assets() -> Path:
    """Folder of the fetched files in the cache of whoever runs this."""
    answer = _command(("fetch", REAL, "grimm", "andersen"))
    if answer["exit"] != 0:
        raise SystemExit(answer["said"])
    return Path(answer["result"]["fetched"][0]["path"]).parents[1]


def _remove(folder: Path) -> None:
    for path in sorted(folder.rglob("*"), reverse=True):
        with contextlib.suppress(OSError):
            path.rmdir() if path.is_dir() else path.unlink()


def _run_case(case: Case, folder: Path) -> list[dict[str, Any]]:
    for name, content in {**TEXTS, **case.files}.items():
        (folder / name).write_text(content, encoding="utf-8")
    return [_command(command) for command in case.commands]


def _command(command: Sequence[str]) -> dict[str, Any]:
    """Run one command in this process.

    Returns:
        ``exit`` (the code, or ``crashed``), ``result`` (the JSON object), ``said`` (what stood on
        standard error and is no progress) and ``files`` (of an export).
    """
    out, err = io.StringIO(), io.StringIO()
    code: int | str = 0
    with (
        mock.patch.object(sys, "argv", ["prune_core", *command, "--json"]),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            runpy.run_module("prune_core", run_name="__main__")
        except SystemExit as stop:
            code = stop.code or 0
        except Exception:  # noqa: BLE001 - a crash is a result like others
            code = "crashed"
            err.write(f"Warning: {traceback.format_exc().splitlines()[-1]}\n")
    lines = err.getvalue().splitlines()
    said = [line for line in lines if code in (1, 2) or line.startswith(("Warning: ", "left out"))]
    answer: dict[str, Any] = {"exit": code, "said": "\n".join(said)}
    answer["result"] = json.loads(out.getvalue()) if out.getvalue() else None
    if "--to" in command and code == 0:
        answer["files"] = _digests(Path(command[command.index("--to") + 1]))
    return answer


def _digests(folder: Path) -> dict[str, Any]:
    """What an export holds: a digest of each tensor, JSON as it is, digests of other files."""
    digests: dict[str, Any] = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = str(path.relative_to(folder))
        if path.suffix == ".safetensors":
            digests[name] = _tensors(path)
        elif path.suffix == ".json" and path.stat().st_size < 100_000:
            digests[name] = json.loads(path.read_text(encoding="utf-8"))
        elif name == "README.md":
            digests[name] = path.read_text(encoding="utf-8")
        else:
            digests[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return digests


def _tensors(path: Path) -> dict[str, Any]:
    """Type, shape and digest of every tensor of a safetensors file, without its library."""
    content = memoryview(path.read_bytes())
    start = 8 + int.from_bytes(content[:8], "little")
    described: dict[str, Any] = {}
    for name, entry in json.loads(bytes(content[8:start])).items():
        if name == "__metadata__":
            described[name] = entry
            continue
        low, high = (start + offset for offset in entry["data_offsets"])
        digest = hashlib.sha256(content[low:high]).hexdigest()
        described[name] = f"{entry['dtype']} {entry['shape']} {digest}"
    return described


# ---- what is compared ------------------------------------------------------------------------


def _leaves(answers: Sequence[Mapping[str, Any]], scratch: Path) -> Leaves:
    """All values by their path, without what may vary; ids of runs become their place."""
    ids: dict[str, str] = {}
    for answer in answers:
        result = answer["result"] or {}
        if "sweep" in result:
            ids.setdefault(result["sweep"], f"<sweep {len(ids)}>")
        for run in result.get("runs", []) if isinstance(result.get("runs"), list) else []:
            ids.setdefault(run["id"], f"<run {len(ids)}>")

    names = list(ids)

    def plain(value: Any) -> Any:
        if not isinstance(value, str):
            return value
        value = ids.get(value, value.replace(str(scratch), "<scratch>"))
        return re.sub(r"\b20\d\d-\d\d-\d\d\b", "<date>", value)

    def walk(value: Any, path: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
        if path and path[-1] in LEFT_OUT:
            return
        if path[-2:] == ("result", "files"):
            value = sorted(value)  # their sizes depend on what is left out
        if isinstance(value, list) and value and all(item in names for item in value):
            value = sorted(value, key=names.index)  # "unclear" is sorted by ids, which are drawn
        if isinstance(value, Mapping) and value:
            for key, item in value.items():
                yield from walk(item, (*path, key))
        elif isinstance(value, list) and value:
            for index, item in enumerate(value):
                yield from walk(item, (*path, str(index)))
        else:
            yield "/".join(path), plain(value)

    return dict(walk(list(answers), ()))


def _parts(leaves: Leaves) -> tuple[Leaves, Leaves]:
    """Numbers, and words."""
    words = {key: value for key, value in leaves.items() if not WORDS.isdisjoint(key.split("/"))}
    return {key: value for key, value in leaves.items() if key not in words}, words


def _digest(leaves: Leaves) -> str:
    """16 digits: enough to see a difference. Floats are written as repr, which is exact."""
    canonical = json.dumps(leaves, sort_keys=True)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def _summary(leaves: Leaves) -> str:
    """A few numbers of the first command, for people."""
    if leaves["0/exit"] != 0:
        return f"exit {leaves['0/exit']}: {leaves['0/said'][:60]}"
    values = {name: leaves.get(f"0/result/{name}") for name in HEADLINES}
    numbers = [f"{name} {value:.6g}" for name, value in values.items() if value is not None]
    return ", ".join(numbers[:2]) or f"{len(leaves)} values"


def _row(leaves: Leaves) -> list[str]:
    return [*(_digest(part) for part in _parts(leaves)), _summary(leaves)]


def _machine() -> dict[str, str]:
    """What floats may depend on."""
    cpu = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        cpu = next((line.split(": ", 1)[1] for line in lines if line.startswith("model name")), cpu)
    versions = {name: metadata.version(name) for name in ("torch", "transformers", "numpy")}
    return {"cpu": cpu, "python": platform.python_version(), **versions}


# ---- verbs -----------------------------------------------------------------------------------


def _record(parsed: argparse.Namespace, cases: Sequence[Case]) -> int:
    targets: list[tuple[Path, Callable[[Leaves], Any]]]
    targets = [(Path(parsed.file).resolve(), _row)]
    if parsed.full:
        targets.append((Path(parsed.full).resolve(), lambda leaves: leaves))
    fresh = results(cases, real=parsed.real)
    for path, kept in targets:
        before = _read(path)["cases"] if path.exists() else {}
        if not parsed.only:  # cases that are no more
            before = {name: row for name, row in before.items() if _is_real(name) != parsed.real}
        rows = before | {name: kept(leaves) for name, leaves in fresh.items()}
        lines = [f"{json.dumps(name)}: {json.dumps(rows[name])}" for name in sorted(rows)]
        head = f'{{"machine": {json.dumps(_machine())},\n"cases": {{\n'
        path.write_text(head + ",\n".join(lines) + "\n}}\n", encoding="utf-8")
        _say(f"{path}: {len(rows)} cases, {path.stat().st_size / 1000:.0f} kB")
    return 0


def _is_real(name: str) -> bool:
    return name.startswith(REAL)


def _read(path: Path) -> dict[str, Any]:
    read: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return read


def _compare(parsed: argparse.Namespace, cases: Sequence[Case]) -> int:
    record = _read(Path(parsed.file))
    if record["machine"] != _machine():
        _say(f"recorded elsewhere, floats may differ: {record['machine']}, here {_machine()}")
    if parsed.to:
        whole = _read(Path(parsed.to))["cases"]
        fresh = {case.name: whole[case.name] for case in cases if case.name in whole}
    else:
        fresh = results(cases, real=parsed.real)
    differing = 0
    for name in record["cases"]:
        if not parsed.only and _is_real(name) == parsed.real and name not in fresh:
            sys.stdout.write(f"{name}\n  was not run\n")
            differing += 1
    for name, leaves in fresh.items():
        kept = record["cases"].get(name)
        if kept is None:
            differences = ["not in the record"]
        elif isinstance(kept, list):
            differences = _unlike_digests(kept, _row(leaves), numbers=parsed.numbers)
        else:
            differences = _unlike_values(kept, leaves, parsed.ignore, numbers=parsed.numbers)
        differing += bool(differences)
        if differences:
            sys.stdout.write("\n  ".join([name, *differences]) + "\n")
    sys.stdout.write(f"{differing} of {len(fresh)} cases differ\n")
    return 1 if differing else 0


def _unlike_digests(kept: Sequence[str], now: Sequence[str], *, numbers: bool) -> list[str]:
    lines = []
    if kept[0] != now[0]:
        lines.append(f"numbers: {kept[2]} -> {now[2]}")
    if kept[1] != now[1] and not numbers:
        lines.append("words: recipe, protocol, fingerprints or sentences")
    return lines


def _unlike_values(
    kept: Leaves, now: Leaves, ignored: Sequence[str], *, numbers: bool, most: int = 12
) -> list[str]:
    unwanted = set(ignored) | (WORDS if numbers else frozenset())
    lines = []
    for key in dict.fromkeys([*kept, *now]):
        if unwanted.isdisjoint(key.split("/")):
            pair = [ascii(side[key]) if key in side else "nothing" for side in (kept, now)]
            if pair[0] != pair[1]:
                lines.append(f"{key}: {pair[0][:100]} -> {pair[1][:100]}")
    more = len(lines) - most
    return lines if more <= 0 else [*lines[:most], f"and {more} more"]


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


if __name__ == "__main__":
    raise SystemExit(main())
