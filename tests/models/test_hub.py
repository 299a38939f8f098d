"""Models from the hub, tested with a small hub on this machine: no pickles, clear refusals."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from prune_core.errors import Cancelled, SourceError, UnknownArchitectureError
from prune_core.models.load import load_model
from prune_core.progress import Progress

COMMIT = "a" * 40


class FakeHub(BaseHTTPRequestHandler):
    """Just enough of the hub's API to list one repository and hand out its files."""

    repo: Path
    asked: list[str]

    def log_message(self, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET(body=False)

    def do_GET(self, *, body: bool = True) -> None:
        path = self.path.partition("?")[0]
        files = sorted(p for p in self.repo.rglob("*") if p.is_file())
        names = [str(p.relative_to(self.repo)) for p in files]
        if path.startswith("/api/models/me/tiny/revision/"):
            siblings = [{"rfilename": name} for name in names]
            info = {"id": "me/tiny", "_id": "1", "sha": COMMIT, "siblings": siblings}
            self.answer(json.dumps(info).encode(), {}, body=body)
        elif path.startswith("/api/models/me/tiny/tree/"):
            tree = [
                {"type": "file", "oid": "0" * 40, "size": file.stat().st_size, "path": name}
                for file, name in zip(files, names, strict=True)
            ]
            self.answer(json.dumps(tree).encode(), {}, body=body)
        elif "/resolve/" in path:
            name = path.partition("/resolve/")[2].partition("/")[2]
            self.asked.append(name)
            content = (self.repo / name).read_bytes()
            tag = hashlib.sha1(content).hexdigest()
            self.answer(content, {"ETag": f'"{tag}"', "X-Repo-Commit": COMMIT}, body=body)
        elif "/gated" in path:
            self.answer(b"{}", {"X-Error-Code": "GatedRepo"}, 403, body=body)
        else:
            self.answer(b"{}", {"X-Error-Code": "RepoNotFound"}, 404, body=body)

    def answer(
        self, content: bytes, headers: dict[str, str], code: int = 200, *, body: bool
    ) -> None:
        self.send_response(code)
        for key, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(key, value)
        self.end_headers()
        if body:
            self.wfile.write(content)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[FakeHub]]:
    FakeHub.repo, FakeHub.asked = tmp_path / "repo", []
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=8, n_embd=8, n_head=2, n_layer=1, n_positions=16)
    GPT2LMHeadModel(config).save_pretrained(FakeHub.repo)
    words = {"<unk>": 0, "a": 1}
    PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(WordLevel(words, unk_token="<unk>")), unk_token="<unk>"
    ).save_pretrained(FakeHub.repo)
    for name in ("pytorch_model.bin", "modeling_evil.py", "onnx/config.json"):
        (FakeHub.repo / name).parent.mkdir(exist_ok=True)
        (FakeHub.repo / name).write_text("{}")
    server = ThreadingHTTPServer(("127.0.0.1", 0), FakeHub)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    monkeypatch.setenv("PRUNE_CACHE_DIR", str(tmp_path / "cache"))
    for name in ("PRUNE_MODE", "PRUNE_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    constants = "huggingface_hub.constants"
    endpoint = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(f"{constants}.ENDPOINT", endpoint)
    template = endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(f"{constants}.HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(f"{constants}.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(f"{constants}.HF_HUB_OFFLINE", False)
    yield FakeHub
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_hub_model_comes_without_pickles_and_code(
    hub: type[FakeHub], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    capfd.readouterr()
    seen: list[tuple[str, int, int, str]] = []
    handle = load_model(
        f"hub:me/tiny@{COMMIT}",
        progress=Progress(lambda e: seen.append((e["stage"], e["done"], e["total"], e["unit"]))),
    )
    assert handle.info.title == "me/tiny" and handle.info.family == "gpt2"
    assert handle.info.provenance == "https://huggingface.co/me/tiny"
    assert hub.asked[0] == "config.json" and "model.safetensors" in hub.asked
    assert not {"pytorch_model.bin", "modeling_evil.py", "onnx/config.json"} & set(hub.asked)
    size = (hub.repo / "model.safetensors").stat().st_size
    assert max(done for stage, done, _, unit in seen if stage == "fetch") >= size
    assert capfd.readouterr().err == ""  # no bars of other libraries
    monkeypatch.setenv("PRUNE_OFFLINE", "1")
    assert load_model("hub:me/tiny@" + COMMIT).info.fingerprint == handle.info.fingerprint


def test_the_config_is_checked_before_the_weights_are_asked_for(hub: type[FakeHub]) -> None:
    (hub.repo / "config.json").write_text('{"model_type": "resnet"}')
    with pytest.raises(UnknownArchitectureError):
        load_model("me/tiny")
    assert set(hub.asked) == {"config.json"}


@pytest.mark.parametrize(
    ("source", "message"), [("me/none", "has no model"), ("me/gated", "is gated")]
)
@pytest.mark.usefixtures("hub")
def test_refusals_of_the_hub_are_one_sentence(source: str, message: str) -> None:
    with pytest.raises(SourceError, match=message) as caught:
        load_model(source)
    assert "http" not in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.usefixtures("hub")
def test_a_download_can_be_cancelled() -> None:
    with pytest.raises(Cancelled):
        load_model("me/tiny", progress=Progress(cancelled=lambda: True))


@pytest.mark.usefixtures("hub")
def test_row_59_no_network_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(SourceError, match="could not be fetched from the hub"):
        load_model("me/tiny")
    monkeypatch.setenv("PRUNE_OFFLINE", "1")
    with pytest.raises(SourceError, match="could not be fetched from the hub"):
        load_model("me/tiny")
