"""What every family in the table must do; a new one is covered by its row there."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import transformers

from prune_core.models.families import FAMILIES
from prune_core.models.load import load_model
from prune_core.models.reading import quiet
from prune_core.models.tiny import tiny_model, tiny_tokenizer
from tests.contracts.families import CHECKS, PAGE, case_of, page, rows_of_the_page, table_row

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_a_family_does_what_its_row_of_the_docs_says(family: str, tmp_path: Path) -> None:
    """Loaded, pruned and exported, each against plain transformers."""
    pytest.importorskip("compressed_tensors")
    with case_of(family, tmp_path) as case:
        cells = {feature: check(case) for feature, check in CHECKS.items()}
    assert rows_of_the_page()[family] == table_row(cells, family)


def test_the_docs_list_every_family_and_no_other() -> None:
    rows = rows_of_the_page()
    assert list(rows) == sorted(FAMILIES)
    assert PAGE.read_text(encoding="utf-8") == page(list(rows.values()))


def test_no_family_is_asked_for_by_its_name() -> None:
    """Names of families stand in the table, in the random models' sizes and in GGUF's tables."""
    allowed = {"families.py", "tiny.py"}
    folders = [ROOT / "prune_core", ROOT / "pages"]
    for path in [ROOT / "app.py", *(p for f in folders for p in f.rglob("*.py"))]:
        if path.name in allowed or path.name.startswith("gguf_"):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            named = isinstance(node, ast.Constant) and str(node.value) in FAMILIES
            assert not named, f"{path.relative_to(ROOT)}: {ast.unparse(node)}"


def test_a_new_family_like_llama_is_one_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seed-OSS is laid out as Llama and not in the table; one like Mistral's is all it needs."""
    assert "seed_oss" not in FAMILIES
    monkeypatch.setitem(FAMILIES, "seed_oss", FAMILIES["mistral"])
    with case_of("seed_oss", tmp_path) as case:
        assert case.handle.structure.family == "seed_oss"
        cells = {feature: check(case) for feature, check in CHECKS.items()}
    like = rows_of_the_page()["mistral"].replace("mistral", "seed_oss")
    assert table_row(cells, "seed_oss") == like


@pytest.mark.parametrize("family", sorted(n for n, f in FAMILIES.items() if f.kind == "encoder"))
def test_an_encoder_is_read_with_the_head_that_it_has(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PRUNE_MODEL_ROOTS", str(tmp_path))
    monkeypatch.setenv("PRUNE_CACHE_DIR", str(tmp_path / "cache"))
    for head in (True, False):
        folder = tmp_path / str(head)
        written = tiny_model(family, head=head)
        with quiet():
            written.save_pretrained(folder)
            tiny_tokenizer().save_pretrained(folder)
            auto = transformers.AutoModelForMaskedLM if head else transformers.AutoModel
            plain = auto.from_pretrained(folder)
        handle = load_model(str(folder))
        assert type(handle.model) is type(plain) is type(written)
        assert (handle.structure.head_module is not None) == head
        assert not [w for w in handle.info.warnings if "not part of the model" in w]
