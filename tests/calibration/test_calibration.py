"""Calibration against a naive computation; texts that are too short, shared or damaged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from prune_core.calibration.statistics import gather_input_norms, statistics_of
from prune_core.calibration.windows import calibration_windows
from prune_core.errors import Cancelled, ModelFileError, RecipeError, TextError
from prune_core.jobs.base import TextSpec
from prune_core.jobs.evaluate import Evaluate
from prune_core.models.clone import clone_shared
from prune_core.models.handle import ModelHandle
from prune_core.progress import Progress
from prune_core.pruning.plan import layer_mask
from prune_core.recipes.calibration import Calibration
from prune_core.recipes.recipe import Recipe
from prune_core.tasks.evaluate import measure
from prune_core.tasks.loaded import LoadedModel
from prune_core.tasks.planning import dense_statistics, work_out
from prune_core.texts.overlap import check_apart

FAMILIES = ["tiny-gpt2", "tiny-llama", "tiny-opt", "tiny-neox", "tiny-bert", "tiny-t5"]
SPOKEN = TextSpec("inline", "A crow was sitting on a branch with a piece of cheese. " * 20)
READ = TextSpec("inline", "Once upon a time there lived a fox in the deep green forest. " * 20)

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRUNE_CACHE_DIR", str(tmp_path))


def tokens(handle: ModelHandle, windows: int = 3, seq_len: int = 16) -> torch.Tensor:
    chosen = Calibration(READ, windows, seq_len)
    return calibration_windows(handle.tokenizer, chosen, handle.info.context)


def naive_norms(handle: ModelHandle, windows: torch.Tensor) -> dict[str, torch.Tensor]:
    """All inputs kept in full, one window at a time through the whole model."""
    model, seen = clone_shared(handle.model), dict[str, list[torch.Tensor]]()
    for name in handle.structure.layers:

        def keep(module: Any, arguments: Any, name: str = name) -> None:
            flat = arguments[0].detach().double().reshape(-1, arguments[0].shape[-1])
            seen.setdefault(name, []).append(flat)

        model.get_submodule(name).register_forward_pre_hook(keep)
    with torch.no_grad():
        for row in windows:
            if handle.structure.kind == "encoder-decoder":
                half = len(row) - len(row) // 2
                model(input_ids=row[None, :half], labels=row[None, half:])
            else:
                model(input_ids=row[None])
    return {name: torch.cat(parts).pow(2).sum(0).sqrt() for name, parts in seen.items()}


@pytest.mark.parametrize("name", FAMILIES)
def test_norms_are_those_of_all_inputs(name: str, handles: Mapping[str, ModelHandle]) -> None:
    handle = handles[name]
    windows = tokens(handle)
    found = gather_input_norms(clone_shared(handle.model), handle.structure, windows)
    expected = naive_norms(handle, windows)
    assert list(found) == list(handle.structure.layers) and set(found) == set(expected)
    for layer, norm in found.items():
        assert norm.dtype == torch.float32
        torch.testing.assert_close(norm.double(), expected[layer], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", FAMILIES)
def test_wanda_masks_are_naive_row_sorts(name: str, handles: Mapping[str, ModelHandle]) -> None:
    handle = handles[name]
    loaded, chosen = LoadedModel(handle), Calibration(READ, 3, 16)
    recipe = Recipe(criterion="wanda", pattern="per-row", sparsity=0.3, calibration=chosen)
    plan = work_out(loaded, recipe)
    norms = dense_statistics(loaded, recipe)
    assert norms is not None
    for key, layer in handle.structure.layers.items():
        norm = norms.layers[key].input_norm
        assert norm is not None
        scores = layer.weight(handle.model).abs() * norm
        mask = torch.ones_like(scores, dtype=torch.bool)
        order = scores.argsort(dim=1, stable=True)[:, : round(0.3 * layer.in_features)]
        mask.scatter_(1, order, False)
        assert torch.equal(layer_mask(plan, handle.structure, key), mask)
        by_size = layer.weight(handle.model).abs().argsort(dim=1, stable=True)
        plain = torch.ones_like(mask).scatter_(1, by_size[:, : order.shape[1]], False)
        if layer.in_features > 16 and norm.std() > 0.1 * norm.mean():
            assert not torch.equal(mask, plain)


def test_a_second_run_reads_the_file_and_a_damaged_one_is_not_believed(
    handles: Mapping[str, ModelHandle], tmp_path: Path
) -> None:
    handle, calls = handles["tiny-llama"], []
    windows, folder = tokens(handle), tmp_path

    def run() -> Any:
        return statistics_of(
            clone_shared(handle.model),
            handle.structure,
            handle.fingerprint,
            windows,
            frozenset({"input_norm"}),
            folder=folder,
            progress=Progress(lambda event: calls.append(event["done"])),
        )

    first = run()
    assert calls == [3]
    second = run()
    assert calls == [3]
    for key in handle.structure.layers:
        assert torch.equal(first.layers[key].input_norm, second.layers[key].input_norm)
    (file,) = folder.glob("*.cache")
    file.write_bytes(file.read_bytes()[:-7])
    run()
    assert calls == [3, 3]


def test_a_full_disk_costs_the_file_only(
    handles: Mapping[str, ModelHandle], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    handle = handles["tiny-llama"]
    monkeypatch.setenv("PRUNE_FAULTS", "statistics.before_write=disk-full")
    model = clone_shared(handle.model)
    found = statistics_of(
        model,
        handle.structure,
        handle.fingerprint,
        tokens(handle),
        frozenset({"input_norm"}),
        folder=tmp_path,
    )
    assert len(found.layers) == len(handle.structure.layers)
    assert not list(tmp_path.iterdir())


def test_infinite_activations_name_the_layer(handles: Mapping[str, ModelHandle]) -> None:
    handle = handles["tiny-llama"]
    model = clone_shared(handle.model)
    block = handle.structure.blocks[1]
    first = block.layers[0]
    weight = handle.model.get_parameter(f"{first}.weight").detach().clone()
    weight[0, 0] = float("nan")
    model.get_submodule(first).weight = torch.nn.Parameter(weight, requires_grad=False)
    with pytest.raises(ModelFileError, match=r"layers\.1\.self_attn\.o_proj are not finite"):
        gather_input_norms(model, handle.structure, tokens(handle))


def test_cancel_leaves_no_hook_behind(handles: Mapping[str, ModelHandle]) -> None:
    handle = handles["tiny-gpt2"]
    model, polls = clone_shared(handle.model), []

    def cancelled() -> bool:
        polls.append(1)
        return len(polls) > 5

    with pytest.raises(Cancelled):
        gather_input_norms(
            model, handle.structure, tokens(handle), progress=Progress(cancelled=cancelled)
        )
    assert not any(module._forward_pre_hooks for module in model.modules())
    assert not any(module._forward_hooks for module in model.modules())


def test_a_text_shorter_than_a_window_is_refused(handles: Mapping[str, ModelHandle]) -> None:
    handle = handles["tiny-llama"]
    short = Calibration(TextSpec("inline", "a fox"), 1, 64)
    with pytest.raises(TextError, match="fewer than one window of 64"):
        calibration_windows(handle.tokenizer, short, handle.info.context)


def test_windows_beyond_the_context_are_told_as_those_of_the_calibration(
    handles: Mapping[str, ModelHandle],
) -> None:
    handle = handles["tiny-llama"]
    with pytest.raises(TextError, match=r"^Calibration windows of 300 tokens .* context of 256;"):
        calibration_windows(handle.tokenizer, Calibration(READ, 1, 300), 256)


def test_a_length_that_nobody_chose_fits_a_short_context(
    handles: Mapping[str, ModelHandle],
) -> None:
    handle = handles["tiny-llama"]
    usual = calibration_windows(handle.tokenizer, Calibration(READ, 2), 48)
    chosen = calibration_windows(handle.tokenizer, Calibration(READ, 2, 48), 48)
    assert torch.equal(usual, chosen) and usual.shape == (2, 48)


def test_a_seed_draws_the_same_windows_again(handles: Mapping[str, ModelHandle]) -> None:
    handle = handles["tiny-llama"]

    def draw(seed: int | None) -> list[list[int]]:
        chosen = Calibration(READ, 4, 8, seed)
        windows = calibration_windows(handle.tokenizer, chosen, handle.info.context)
        rows: list[list[int]] = windows.tolist()
        return rows

    assert draw(3) == draw(3)
    assert draw(3) != draw(4)
    everything = calibration_windows(
        handle.tokenizer, Calibration(READ, 4096, 8), handle.info.context
    ).tolist()
    assert all(row in everything for row in draw(3)) and len(draw(3)) == 4


def test_overlap_is_counted_in_tokens() -> None:
    evaluation = [torch.arange(100), torch.arange(200, 300)]
    calibration = torch.arange(1000, 1100)[None].repeat(2, 1)
    check_apart(calibration, evaluation)
    calibration[1, 10:45] = torch.arange(230, 265)
    with pytest.raises(TextError, match="35 of the 200 evaluation tokens"):
        check_apart(calibration, evaluation)
    calibration[1, 10] = 0  # 34 in a row
    calibration[1, 30] = 0  # 19 and 14 in a row: chance may do that
    check_apart(calibration, evaluation)


@pytest.mark.parametrize("overridden", [False, True])
def test_the_evaluation_text_may_not_calibrate(
    overridden: bool, handles: Mapping[str, ModelHandle]
) -> None:
    loaded = LoadedModel(handles["tiny-llama"])
    share: dict[str, Any] = {"sparsity": 0.5} if not overridden else {"overrides": {"block:0": 0.5}}
    recipe = Recipe(criterion="ria", calibration=Calibration(SPOKEN, 2, 32), **share)
    job = Evaluate("tiny-llama", recipe, SPOKEN, 32, 2)
    with pytest.raises(TextError, match="64 of the 64 evaluation tokens"):
        measure(loaded, job)


def test_an_evaluation_tells_of_the_calibration(handles: Mapping[str, ModelHandle]) -> None:
    loaded = LoadedModel(handles["tiny-llama"])
    recipe = Recipe(
        criterion="wanda",
        pattern="per-row",
        sparsity=0.5,
        calibration=Calibration(READ, 2, 32),
    )
    events: list[dict[str, Any]] = []
    job = Evaluate("tiny-llama", recipe, SPOKEN, 32, 2)
    result = measure(loaded, job, Progress(events.append))
    stages = [event["stage"] for event in events]
    assert stages.count("statistics") >= 1
    assert result["perplexity"] > 0 and result["seconds"]["statistics"] > 0


@pytest.mark.parametrize(
    "args", [{"power": "high"}, {"power": True}, {"strength": 1}, {"power": 10**400}]
)
def test_unknown_arguments_are_one_sentence(
    args: dict[str, Any], handles: Mapping[str, ModelHandle]
) -> None:
    recipe = Recipe(
        criterion="ria", criterion_args=args, sparsity=0.5, calibration=Calibration(READ, 2, 16)
    )
    with pytest.raises(RecipeError, match=r"ria"):
        work_out(LoadedModel(handles["tiny-llama"]), recipe)


def test_a_calibration_survives_the_recipe_file() -> None:
    recipe = Recipe(criterion="wanda", calibration=Calibration(READ, 5, 64, 7, 9))
    again = Recipe.from_json(recipe.to_json())
    assert again == recipe and again.fingerprint == recipe.fingerprint
    assert Recipe.from_json(Recipe().to_json()) == Recipe()
    for damage in ({"windows": 0}, {"seq_len": True}, {"nonsense": 1}, 5, {"text": {"a": 1}}):
        with pytest.raises(RecipeError):
            Recipe.from_dict({**Recipe().to_dict(), "calibration": damage})


@pytest.mark.parametrize(
    ("criterion", "reconstruction"),
    [
        ("wanda", "none"),
        ("sparsegpt", "none"),
        ("sparsegpt", "sparsegpt"),
        ("taylor", "none"),
        ("fisher", "none"),
    ],
)
def test_nan_in_a_weight_names_a_layer_for_every_statistic(
    handles: Mapping[str, ModelHandle], criterion: str, reconstruction: str
) -> None:
    handle = handles["tiny-llama"]
    model = clone_shared(handle.model)
    name = handle.structure.blocks[1].layers[0]
    weight = handle.model.get_parameter(f"{name}.weight").detach().clone()
    weight[0, 0] = float("nan")
    model.get_submodule(name).weight = torch.nn.Parameter(weight, requires_grad=False)
    loaded = LoadedModel(replace(handle, model=model))
    recipe = Recipe(
        criterion=criterion,
        reconstruction=reconstruction,
        sparsity=0.5,
        calibration=Calibration(READ, 2, 16),
    )
    with pytest.raises(ModelFileError, match=r"layers\.\d+\.\S+ .*not finite"):
        work_out(loaded, recipe)


def test_global_wanda_is_one_sort_of_shares(handles: Mapping[str, ModelHandle]) -> None:
    handle = handles["tiny-llama"]
    loaded = LoadedModel(handle)
    recipe = Recipe(
        criterion="wanda", allocation="global", sparsity=0.4, calibration=Calibration(READ, 3, 16)
    )
    plan = work_out(loaded, recipe)
    norms = naive_norms(handle, tokens(handle))
    layers = handle.structure.layers
    scores = {}
    for name, layer in layers.items():
        score = layer.weight(handle.model).double().abs() * norms[name]
        scores[name] = score / score.mean()
    everything = torch.cat([s.reshape(-1) for s in scores.values()])
    limit = everything.sort()[0][round(0.4 * everything.numel())]
    wrong = 0
    for name in layers:
        wrong += int((layer_mask(plan, handle.structure, name) != (scores[name] >= limit)).sum())
    assert wrong <= 4, "rounding at the limit"


def test_a_text_file_that_changes_is_read_again(
    handles: Mapping[str, ModelHandle], tmp_path: Path
) -> None:
    loaded, path = LoadedModel(handles["tiny-llama"]), tmp_path / "calibration.txt"
    spec = TextSpec("file", str(path))
    recipe = Recipe(criterion="wanda", sparsity=0.5, calibration=Calibration(spec, 2, 16))
    path.write_text(READ.value)
    first = loaded.calibration(recipe.calibration)
    assert loaded.calibration(recipe.calibration) is first, "not tokenized again"
    path.write_text(SPOKEN.value + "!")
    assert not torch.equal(loaded.calibration(recipe.calibration), first)
    path.unlink()
    with pytest.raises(TextError, match="no text file"):
        loaded.calibration(recipe.calibration)
