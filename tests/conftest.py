from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest
import torch

from prune_core.models.handle import ModelHandle
from prune_core.models.load import load_model
from prune_core.models.tiny import TINY


@pytest.fixture(scope="session", autouse=True)
def own_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Nothing a test does ends up in the store of whoever runs it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PRUNE_STORE", str(tmp_path_factory.mktemp("store") / "runs.sqlite"))
        yield


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Tiny models are faster on one thread, and leave the other core alone."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def handles() -> Mapping[str, ModelHandle]:
    """The tiny presets by name, loaded once: nobody may change them."""
    return {name: load_model(name) for name in TINY}
