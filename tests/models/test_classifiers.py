"""Encoders with a classification head: the loss of the dense model's class, and a kept head."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor
from torch.nn import functional as F

from prune_core.analysis.blocks.ablation import block_costs
from prune_core.analysis.blocks.greedy import greedy_path
from prune_core.analysis.heads.ablation import head_costs
from prune_core.analysis.heads.scores import all_sites, gradient_scores, head_gates
from prune_core.engine.core import Core
from prune_core.errors import TextError
from prune_core.jobs.base import LoadModel, TextSpec
from prune_core.jobs.evaluate import Evaluate
from prune_core.jobs.exports import Export
from prune_core.jobs.heads import HeadImportance
from prune_core.models.handle import ModelHandle
from prune_core.models.load import load_model
from prune_core.models.tiny import tiny_model, tiny_tokenizer
from prune_core.recipes.recipe import Recipe
from prune_core.tasks.loaded import LoadedModel
from tests.ui.apps import app, fine

FAMILIES = ("bert", "distilbert", "roberta")
TEXT = TextSpec("inline", "The wolf went to the well, and the stones fell in. " * 12)
CLS, SEP = 1, 2


def write(folder: Path, family: str, **settings: Any) -> Path:
    """A random classifier of 3 blocks and 4 classes as a checkpoint."""
    blocks = "n_layers" if family == "distilbert" else "num_hidden_layers"
    config = tiny_model(family, **{blocks: 3}).config
    for name, value in ({"num_labels": 4} | settings).items():
        setattr(config, name, value)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = transformers.AutoModelForSequenceClassification.from_config(config)
        for parameter in model.parameters():
            if parameter.dim() > 1:
                torch.nn.init.normal_(parameter, std=0.25)
    model.save_pretrained(folder)
    tokenizer = tiny_tokenizer()
    tokenizer.cls_token, tokenizer.sep_token = "<|bos|>", "<|endoftext|>"
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("classifiers")
    return {family: write(root / family, family) for family in FAMILIES}


@pytest.fixture(params=FAMILIES)
def handle(request: pytest.FixtureRequest, folders: dict[str, Path]) -> ModelHandle:
    return load_model(str(folders[request.param]))


def windows(handle: ModelHandle, count: int = 3) -> list[Tensor]:
    return LoadedModel(handle).windows(TEXT, 24, count)


def losses(model: Any, text: list[Tensor], labels: list[int]) -> Tensor:
    with torch.no_grad():
        logits = torch.cat([model(input_ids=tokens[None]).logits for tokens in text])
    return F.cross_entropy(logits.double(), torch.tensor(labels), reduction="none")


def labels_of(model: Any, text: list[Tensor]) -> list[int]:
    with torch.no_grad():
        return [int(model(input_ids=tokens[None]).logits.argmax()) for tokens in text]


def plain(handle: ModelHandle) -> Any:
    """Transformers' own copy of it."""
    kind: Any = type(handle.model)
    return kind.from_pretrained(handle.info.source).eval()


def test_it_is_read_with_its_head(handle: ModelHandle) -> None:
    assert handle.info.classes == 4 and not handle.info.has_language_head
    assert handle.info.warnings == (
        "The model's license is not known here; check it before sharing.",
    )


def test_windows_stand_between_its_special_tokens(handle: ModelHandle) -> None:
    bare = handle.tokenizer(TEXT.value, add_special_tokens=False)["input_ids"]
    found = windows(handle)
    assert [len(tokens) for tokens in found] == [24] * 3
    assert all(tokens[0] == CLS and tokens[-1] == SEP for tokens in found)
    assert torch.cat([tokens[1:-1] for tokens in found]).tolist() == bare[:66]
    with pytest.raises(TextError, match=r"A window needs at least 4 tokens .* got 1 of 3"):
        LoadedModel(handle).windows(TEXT, 3, 1)


def test_ablation_is_the_loss_of_the_dense_models_class(handle: ModelHandle) -> None:
    text = windows(handle)
    found = head_costs(handle, text)
    assert found["metric"] == "classes"
    model = plain(handle)
    labels = labels_of(model, text)
    dense = losses(model, text, labels)
    for (block, attention), row in zip(all_sites(handle.structure), found["mean"], strict=True):
        layer = model.get_submodule(attention.o)
        for head in range(attention.num_heads):
            before = layer.weight.detach().clone()
            with torch.no_grad():
                layer.weight[:, attention.columns(head)] = 0
            cost = float((losses(model, text, labels) - dense).mean())
            with torch.no_grad():
                layer.weight.copy_(before)
            assert row[head] == pytest.approx(cost, abs=2e-6), (block.index, head)
    costs = [cost for row in found["mean"] for cost in row]
    assert min(costs) < 0 < max(costs)  # signed


def test_gradient_is_that_of_the_same_loss(handle: ModelHandle) -> None:
    text = windows(handle)
    found = gradient_scores(handle.model, handle.structure, text)
    model = plain(handle).requires_grad_(False)
    labels = labels_of(model, text)
    sites = all_sites(handle.structure)
    step = 1e-3
    with head_gates(model, sites) as gates:
        for place, (_block, attention) in enumerate(sites):
            for head in range(attention.num_heads):
                sides = []
                for gate in (1 + step, 1 - step):
                    with torch.no_grad():
                        gates[place][head] = gate
                    sides.append(losses(model, text, labels))
                with torch.no_grad():
                    gates[place][head] = 1
                slope = float(((sides[0] - sides[1]) / (2 * step)).abs().mean())
                assert found[place][head] == pytest.approx(slope, abs=2e-3, rel=0.02)


def test_blocks_are_measured_by_it_too(handle: ModelHandle) -> None:
    text = windows(handle)
    found = block_costs(handle, text, ("block",))
    path = greedy_path(handle, text, 1)
    model = plain(handle)
    labels = labels_of(model, text)
    dense = losses(model, text, labels)
    assert found["metric"] == path["metric"] == "classes"
    assert found["nll_dense"] == pytest.approx(float(dense.mean()), abs=1e-6)
    base: Any = model.base_model
    stack = base.transformer if hasattr(base, "transformer") else base.encoder
    whole, costs = stack.layer, []
    for gone in range(len(whole)):
        stack.layer = torch.nn.ModuleList(b for n, b in enumerate(whole) if n != gone)
        costs.append(float((losses(model, text, labels) - dense).mean()))
    assert found["block"]["mean"] == pytest.approx(costs, abs=2e-6)
    assert path["dense"] == pytest.approx(float(dense.mean()), abs=1e-6)
    assert path["path"][0]["value"] == pytest.approx(float(dense.mean()) + costs[1], abs=2e-6)


def test_evaluation_counts_windows_of_the_same_class(handle: ModelHandle) -> None:
    recipe = Recipe(drop_heads=((0, 0), (1, 3), (2, 2)), sparsity=0.6)
    core = Core()
    found = core.run(Evaluate(handle.info.source, recipe, TEXT, 24, 8))
    loaded = core.loaded(handle.info.source)
    text = loaded.windows(TEXT, 24, 8)
    with torch.no_grad():
        ours, dense = (
            torch.cat([m(input_ids=tokens[None]).logits for tokens in text]).log_softmax(-1)
            for m in (loaded.copy.model, plain(handle))
        )
    same = (ours.argmax(-1) == dense.argmax(-1)).double()
    kl = (dense.exp() * (dense - ours)).sum(-1).double()
    assert found["metric"] == "similarity" and found["perplexity"] is None
    assert found["top1"] == pytest.approx(float(same.mean()))
    assert found["kl"] == pytest.approx(float(kl.mean()), rel=1e-3)
    assert found["kl_stderr"] > 0
    again = Core().run(
        Evaluate(handle.info.source, Recipe(), TEXT, 24, 8)
    )  # its dense answers come from the disk now
    assert again["top1"] == 1 and again["kl"] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("form", ["masked", "shrunk"])
def test_an_export_keeps_the_head(handle: ModelHandle, form: str, tmp_path: Path) -> None:
    recipe = Recipe(drop_blocks=(1,)) if form == "shrunk" else Recipe(drop_heads=((0, 1),))
    core = Core()
    job = Export(
        handle.info.source,
        recipe,
        text=TEXT,
        seq_len=24,
        windows=2,
        folder=str(tmp_path / "out"),
        format=form,
        repeats=0,
    )
    core.run(job)
    again = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "out").eval()
    tokens = windows(handle)[0][None]
    copy = core.loaded(handle.info.source).copy.model
    with torch.no_grad():
        ours, theirs = copy(input_ids=tokens).logits, again(input_ids=tokens).logits
    assert torch.allclose(ours, theirs, atol=1e-5)
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "AutoModelForSequenceClassification.from_pretrained" in card
    assert "most likely class unchanged" in card and "predictions" not in card


@pytest.mark.parametrize(
    "settings",
    [
        {"num_labels": 1},
        {"problem_type": "regression", "num_labels": 3},
        {"problem_type": "multi_label_classification"},
    ],
)
def test_outputs_that_are_no_classes_are_kept_but_not_measured(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    source = str(write(tmp_path / "model", "bert", **settings))
    info = Core().run(LoadModel(source))
    assert info["classes"] == 0
    job = HeadImportance(source, "ablation", TEXT, 24, 2)
    found = Core().run(job)
    assert found["unit"] == "1 - cosine"
    core, recipe = Core(), Recipe(drop_heads=((0, 1),))
    core.run(
        Export(source, recipe, str(tmp_path / "out"), text=TEXT, seq_len=24, windows=2, repeats=0)
    )
    weights = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "out")
    before = load_model(source).model
    assert torch.equal(weights.classifier.weight, before.get_parameter("classifier.weight"))


def test_a_head_for_single_tokens_is_left_out_and_told(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    folder = tmp_path / "tokens"
    shutil.copytree(folders["bert"], folder)
    config = json.loads((folder / "config.json").read_text())
    config["architectures"] = ["BertForTokenClassification"]
    (folder / "config.json").write_text(json.dumps(config))
    info = load_model(str(folder)).info
    assert info.classes == 0
    assert any("left out: classifier" in warning for warning in info.warnings)


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_the_pages_say_which_loss_it_is(
    folders: dict[str, Path], lang: str, inline_engine: None
) -> None:
    settings = {"model": str(folders["bert"]), "lang": lang, "seq_len": "24", "windows": "2"}

    told = {"en": "4 classes", "zh": "4 类"}[lang]
    for page, query in (
        ("attention", {"head_method": "ablation"}),
        ("layers", {"block_method": "ablation"}),
        ("layers", {"block_method": "greedy"}),
        ("overview", {}),
    ):
        assert any(
            told in caption.value for caption in fine(app(page, **(settings | query))).caption
        ), page
    fine(app("studio", **settings, drop_heads="0:1"))
