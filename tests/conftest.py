from __future__ import annotations

import os

# before torch is imported, and for every process that a test starts: several tests run at once,
# tiny models are no faster on two threads, and a thread that waits must not spin on a core
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from collections.abc import Iterator, Mapping

import pytest

from prune_core.models.handle import ModelHandle
from prune_core.models.load import load_model
from prune_core.models.tiny import TINY


@pytest.fixture(scope="session", autouse=True)
def own_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Nothing a test does ends up in the store of whoever runs it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PRUNE_STORE", str(tmp_path_factory.mktemp("store") / "runs.sqlite"))
        yield


@pytest.fixture
def inline_engine(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Pages whose engine works in this process, and begins and ends with the test."""
    import streamlit as st

    monkeypatch.setenv("PRUNE_ENGINE", "inline")
    st.cache_resource.clear()
    yield
    st.cache_resource.clear()


@pytest.fixture(scope="session")
def handles() -> Mapping[str, ModelHandle]:
    """The tiny presets by name, loaded once: nobody may change them."""
    return {name: load_model(name) for name in TINY}
