"""What users may type to name a model: read into types, confined, or refused in a sentence."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from prune_core.errors import SourceError
from prune_core.models.sources import (
    TINY_TITLES,
    GgufFile,
    HubId,
    LocalFolder,
    Preset,
    Source,
    parse_source,
    preset_names,
    shown,
    source_choices,
)

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "models"
    folder.mkdir()
    monkeypatch.setenv("PRUNE_MODEL_ROOTS", str(folder))
    monkeypatch.delenv("PRUNE_MODE", raising=False)
    return folder


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("smollm2-135m", Preset("smollm2-135m")),
        ("  tiny-gpt2 ", Preset("tiny-gpt2")),
        ("openai-community/gpt2", HubId("openai-community/gpt2")),
        ("hub:gpt2", HubId("gpt2")),
        (f"hub:EleutherAI/pythia-70m@{COMMIT}", HubId("EleutherAI/pythia-70m", COMMIT)),
        (f"Qwen/Qwen2.5-0.5B@{COMMIT}", HubId("Qwen/Qwen2.5-0.5B", COMMIT)),
    ],
)
def test_names_are_read_and_round_trip(text: str, source: Source) -> None:
    assert parse_source(text) == source
    assert parse_source(source.text) == source


def test_folders_and_gguf_files_are_read_and_round_trip(root: Path) -> None:
    (root / "mine").mkdir()
    (root / "mine.gguf").write_bytes(b"GGUF")
    folder, file = parse_source(str(root / "mine")), parse_source(str(root / "x/../mine.gguf"))
    assert folder == LocalFolder(root / "mine") and parse_source(folder.text) == folder
    assert file == GgufFile(root / "mine.gguf") and parse_source(file.text) == file


def test_defaults_allow_home_working_directory_and_temporary_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PRUNE_MODEL_ROOTS", raising=False)
    for variable in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(variable, str(tmp_path / "home"))
    (tmp_path / "home" / "m").mkdir(parents=True)
    (tmp_path / "here" / "m").mkdir(parents=True)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temp"))
    monkeypatch.chdir(tmp_path / "here")
    assert parse_source("~/m") == LocalFolder(tmp_path / "home" / "m")
    assert parse_source("./m") == LocalFolder(tmp_path / "here" / "m")
    with pytest.raises(SourceError, match="not under an allowed folder"):
        parse_source(str(tmp_path))


def refusal(text: str) -> str:
    with pytest.raises(SourceError) as caught:
        parse_source(text)
    return str(caught.value).replace(shown(text), "X")  # a long path is cut


def test_row_24_outside_reads_the_same_for_existing_and_missing_targets(
    root: Path, tmp_path: Path
) -> None:
    (tmp_path / "secret").mkdir()
    (root / "link").symlink_to(tmp_path / "secret")
    (root / "dangling").symlink_to(tmp_path / "nothing")
    (root / "loop").symlink_to(root / "loop")
    texts = ["/etc", "/nowhere/at/all", f"{root}/../secret", f"{root}/../absent", f"{root}/link"]
    texts += [f"{root}/dangling", "../../etc", "../../absent", "~nobody-of-that-name/x"]
    texts += ["//server/share", "\\\\server\\share", "C:evil", "C:\\evil", "/etc/passwd.gguf"]
    texts += ["/etc/absent.gguf"]
    expected = (
        "X is not under an allowed folder; set PRUNE_MODEL_ROOTS to the folder that holds your "
        "models."
    )
    assert {refusal(text) for text in texts} == {expected}


@pytest.mark.parametrize("text", [f"/tmp/a{chr(0)}b", "/" + "a" * 5000, "a" * 5000, "/x" * 2500])
@pytest.mark.usefixtures("root")
def test_row_24_nul_and_endless_paths_are_refused_and_not_echoed_whole(text: str) -> None:
    with pytest.raises(SourceError, match="not under an allowed folder") as caught:
        parse_source(text)
    assert len(str(caught.value)) < 250 and "\0" not in str(caught.value)


def test_row_25_a_folder_that_is_gone_is_told(root: Path) -> None:
    with pytest.raises(SourceError, match="There is no model folder"):
        parse_source(str(root / "gone"))
    with pytest.raises(SourceError, match="There is no GGUF file"):
        parse_source(str(root / "gone.gguf"))


@pytest.mark.parametrize("text", ["smollm", "SmolLM2-135M", "tiny-gpt"])
def test_a_near_miss_gets_a_hint(text: str) -> None:
    with pytest.raises(SourceError, match="did you mean"):
        parse_source(text)


@pytest.mark.parametrize(
    "text",
    ["", "   ", "hub:", "hub:a/b/c", "hub:../x", "hub:a/../b", "hub:-a/b", f"hub:a/b@{COMMIT[:8]}"],
)
def test_malformed_names_are_refused(text: str) -> None:
    with pytest.raises(SourceError):
        parse_source(text)


def test_public_mode_knows_presets_only(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRUNE_MODE", "public")
    (root / "mine").mkdir()
    assert parse_source("minilm-l6") == Preset("minilm-l6")
    for text in (str(root / "mine"), "/etc", "hub:openai/gpt2", "openai/gpt2", "x.gguf"):
        with pytest.raises(SourceError):
            parse_source(text)


def test_team_mode_adds_listed_owners(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRUNE_MODE", "team")
    monkeypatch.setenv("PRUNE_HUB_ORGS", "openai, EleutherAI")
    assert parse_source("EleutherAI/pythia-70m") == HubId("EleutherAI/pythia-70m")
    for text in ("other/gpt2", "hub:openai", str(root)):
        with pytest.raises(SourceError):
            parse_source(text)


def test_an_unknown_mode_opens_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRUNE_MODE", "Publik")
    with pytest.raises(SourceError, match="PRUNE_MODE must be"):
        parse_source("openai/gpt2")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)
@given(
    text=st.one_of(
        st.text(max_size=60),
        st.from_regex(r"(hub:)?[\w.@/~:-]{0,40}(\.gguf)?", fullmatch=True),
        st.lists(st.sampled_from(["..", ".", "~", "mine", "a/b", "", "hub:", "\0"])).map("/".join),
    )
)
def test_anything_typed_gives_a_confined_source_or_a_source_error(root: Path, text: str) -> None:
    (root / "mine").mkdir(exist_ok=True)
    source = None
    with contextlib.suppress(SourceError):
        source = parse_source(text)
    if source is not None:
        assert parse_source(source.text) == source
    if isinstance(source, LocalFolder | GgufFile):
        assert source.path.resolve().is_relative_to(root)


def test_choices_show_license_and_provenance() -> None:
    rows = source_choices()
    assert [row["name"] for row in rows] == list(preset_names())
    assert rows[0]["name"] == "smollm2-135m"
    for row in rows:
        assert row["license"] and row["provenance"] and row["title"] and row["description"]


def test_tiny_presets_are_those_that_can_be_made() -> None:
    from prune_core.models.tiny import TINY

    assert set(TINY_TITLES) <= set(TINY)


def test_the_web_process_can_read_sources_texts_and_assets_without_torch() -> None:
    program = (
        "import sys; import prune_core.models.sources, prune_core.models.checks; "
        "import prune_core.texts.reading; "
        "prune_core.models.sources.source_choices(); prune_core.texts.reading.text_choices(); "
        "assert not {'torch', 'transformers', 'streamlit'} & set(sys.modules)"
    )
    project = Path(__file__).resolve().parents[2]
    subprocess.run([sys.executable, "-c", program], check=True, cwd=project, env=dict(os.environ))
