from __future__ import annotations

import os

# before torch is imported, and for every process that a test starts: several tests run at once,
# tiny models are no faster on two threads, and a thread that waits must not spin on a core
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["OMP_WAIT_POLICY"] = "PASSIVE"

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hypothesis
import psutil
import pytest

from prune_core.models.handle import ModelHandle
from prune_core.models.load import load_model
from prune_core.models.tiny import TINY
from prune_core.texts.windows import token_windows

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

# a busy machine makes an example slow, not wrong
hypothesis.settings.register_profile("suite", deadline=None)
hypothesis.settings.load_profile("suite")

MAX_WORKERS = 4  # each may load the real model and start engines, command lines and a browser

LONGEST_FIRST = (
    "test_real_model.py",
    "test_browser.py",
    "cli/test_cli.py",
    "ui/test_studio_page.py",
    "ui/test_pages.py",
    "sweeps/test_sweeps_run.py",
    "engine/test_engine.py",
    "exporting/test_exporting.py",
    "ui/test_export_drawer.py",
    "ui/test_compare_page.py",
    "sweeps/test_background_sweeps.py",
    "test_real_structure.py",
    "exporting/test_cost.py",
    "models/test_families.py",
    "ui/test_neurons_page.py",
    "exporting/test_compressed.py",
)
"""Files that take longest, so that no worker begins one of them when the others are done."""


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """A worker for each processor; single files run in this process, which starts at once."""
    if os.environ.get("PYTEST_XDIST_AUTO_NUM_WORKERS"):
        return None  # as xdist reads it
    if all(Path(argument.partition("::")[0]).is_file() for argument in config.args):
        return 0
    return min(MAX_WORKERS, psutil.cpu_count() or 1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    place = {here / name: number for number, name in enumerate(LONGEST_FIRST)}
    if gone := [path for path in place if not path.is_file()]:
        raise pytest.UsageError(f"LONGEST_FIRST in tests/conftest.py names {gone[0].name}: gone.")
    items.sort(key=lambda item: place.get(item.path, len(place)))


@pytest.fixture(scope="session", autouse=True)
def own_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Nothing a test does ends up in the store of whoever runs it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PRUNE_STORE", str(tmp_path_factory.mktemp("store") / "runs.sqlite"))
        yield


@pytest.fixture(scope="session")
def remembered_windows() -> Callable[..., Tensor]:
    """``token_windows`` that cuts a text once for all tokenizers of one content.

    Each page of a test is a new session with a new tiny model, and would spend most of its time
    on the tokens of the same whole book.
    """
    windows: dict[tuple[str, str, str], Tensor] = {}

    def remembered(tokenizer: PreTrainedTokenizerBase, text: str, **sizes: Any) -> Tensor:
        key = (tokenizer.backend_tokenizer.to_str(), text, repr(sorted(sizes.items())))
        if key not in windows:
            windows[key] = token_windows(tokenizer, text, **sizes)
        return windows[key].clone()

    return remembered


@pytest.fixture
def inline_engine(
    remembered_windows: Callable[..., Tensor], monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """Pages whose engine works in this process, and begins and ends with the test."""
    import streamlit as st

    monkeypatch.setattr("prune_core.tasks.loaded.token_windows", remembered_windows)
    monkeypatch.setattr("prune_core.calibration.windows.token_windows", remembered_windows)
    monkeypatch.setenv("PRUNE_ENGINE", "inline")
    st.cache_resource.clear()
    yield
    st.cache_resource.clear()


@pytest.fixture(scope="session")
def handles() -> Mapping[str, ModelHandle]:
    """The tiny presets by name, loaded once: nobody may change them."""
    return {name: load_model(name) for name in TINY}
