"""The dozen commands on SmolLM2-135M whose results ``tests.goldens`` keeps with ``--real``.

Their texts and prompts hold no digits, but for the case that is called so: tokenizers of this
family split numbers into digits, and a change of that must not look like a change of everything.
"""

from __future__ import annotations

from collections.abc import Iterator

from tests.golden_cases import Case, grid, recipe

REAL = "smollm2-135m"


def real_cases() -> Iterator[Case]:
    """On the default preset; only what is called numbered reads digits."""
    read = ("--text", "grimm", "--seq-len", "128", "--windows", "4")
    brief = ("--text", "grimm", "--seq-len", "96", "--windows", "2")
    learn = ("--calibration-windows", "4", "--calibration-seq-len", "128")
    half = ("--pattern", "per-row", "--sparsity", "0.5")
    wanda = ("--criterion", "wanda", *half, *learn)
    calibration = {"text": {"kind": "preset", "value": "andersen"}, "windows": 4, "seq_len": 128}
    files = {
        "a.json": recipe(pattern="per-row", sparsity=0.5),
        "b.json": recipe(
            criterion="wanda", pattern="per-row", sparsity=0.5, calibration=calibration
        ),
    }
    parts = (
        *("--drop-heads", "0:0,0:1,0:2,5:4", "--drop-neurons", "0.1", "--compensate"),
        *("--neuron-method", "fluctuation", "--drop-blocks", "20", *learn),
    )
    prompt = ("--prompt", "Why is the sky blue?", "--max-new-tokens", "16")
    sizes = grid(
        models=[REAL],
        texts=["grimm"],
        criteria=["magnitude", "wanda"],
        patterns=["per-row"],
        sparsities=[0.3, 0.5],
        calibration={"text": "andersen", "windows": 4, "seq_len": 128},
        seq_len=128,
        windows=2,
    )
    numbers = ("--text", "numbered.txt", "--seq-len", "128", "--windows", "4")
    repaired = ("--criterion", "sparsegpt", "--reconstruction", "sparsegpt", *half, *learn)
    shrunk = ("--drop-neurons", "0.1", *learn, "--drop-blocks", "20", "--format", "shrunk")
    store = ("--store", "runs.sqlite")
    for name, commands, given in (
        ("inspect", (("inspect", REAL),), {}),
        ("evaluate magnitude per-row", (("evaluate", REAL, *half, *read),), {}),
        ("evaluate wanda per-row", (("evaluate", REAL, *wanda, *read),), {}),
        ("evaluate numbered text", (("evaluate", REAL, *half, *numbers),), {}),
        ("evaluate sparsegpt, repaired", (("evaluate", REAL, *repaired, *brief),), {}),
        ("evaluate parts", (("evaluate", REAL, *parts, *read),), {}),
        ("importance of heads", (("importance", REAL, "--lowest", "0.1", *brief),), {}),
        (
            "importance of neurons",
            (("importance", REAL, "--of", "neurons", "--method", "weighted", *brief),),
            {},
        ),
        ("importance of blocks", (("importance", REAL, "--of", "blocks", *brief),), {}),
        ("compare", (("compare", REAL, "--recipes", "a.json", "b.json", *brief),), files),
        (
            "sweep, frontier",
            (("sweep", "grid.yaml", *store), ("frontier", *store)),
            {"grid.yaml": sizes},
        ),
        ("generate greedy", (("generate", REAL, *prompt, *half, "--greedy"),), {}),
        ("generate chat, drawn", (("generate", REAL, *prompt, *wanda, "--chat"),), {}),
        (
            "export shrunk",
            (("export", REAL, *shrunk, "--to", "export", "--repeats", "0", *brief),),
            {},
        ),
        ("cost", (("cost", REAL, *half, "--repeats", "0"),), {}),
    ):
        yield Case(f"{REAL}: {name}", commands, given)
