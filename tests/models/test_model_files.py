"""Model files: what is damaged, incomplete or dangerous is refused in one sentence."""

from __future__ import annotations

import json
import pickle
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from prune_core.errors import (
    Cancelled,
    MemoryGuardError,
    ModelFileError,
    SourceError,
    UnknownArchitectureError,
)
from prune_core.models import convert, memory
from prune_core.models.checks import read_config
from prune_core.models.convert import convert_gguf, converted_path
from prune_core.models.fingerprint import file_sha256, folder_fingerprint
from prune_core.models.headers import DEQUANTIZABLE, read_gguf_header, read_safetensors_header
from prune_core.models.load import load_model
from prune_core.models.memory import guard_memory
from prune_core.models.reading import model_class
from prune_core.progress import Progress

Folder = Callable[..., Path]


def make_tokenizer(size: int = 40) -> PreTrainedTokenizerFast:
    words = {"<unk>": 0, "</s>": 1, **{f"w{i}": i for i in range(2, size)}}
    backend = Tokenizer(WordLevel(words, unk_token="<unk>"))
    backend.pre_tokenizer = Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="<unk>", eos_token="</s>", pad_token="</s>"
    )


def llama_config(**changes: Any) -> LlamaConfig:
    sizes: dict[str, Any] = {
        "vocab_size": 40,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 64,
        "tie_word_embeddings": False,
    }
    return LlamaConfig(**(sizes | changes))


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("good")
    torch.manual_seed(0)
    LlamaForCausalLM(llama_config()).save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRUNE_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("PRUNE_MODEL_ROOTS", str(tmp_path))
    for name in ("PRUNE_MODE", "PRUNE_OFFLINE", "PRUNE_FAULTS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def folder(good: Path, tmp_path: Path) -> Path:
    return shutil.copytree(good, tmp_path / "model")


def refused(folder: Path, kind: type[Exception] = ModelFileError) -> str:
    with pytest.raises(kind) as caught:
        load_model(str(folder))
    text = str(caught.value)
    assert "\n" not in text and text.endswith(".")
    return text


def edit_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def edit_tensors(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def test_a_good_folder_loads_as_saved(folder: Path) -> None:
    seen: list[str] = []
    handle = load_model(str(folder), progress=Progress(lambda event: seen.append(event["stage"])))
    saved = load_file(folder / "model.safetensors")
    loaded = dict(handle.model.named_parameters())
    assert set(saved) == set(loaded)
    assert all(torch.equal(saved[name], loaded[name]) for name in saved)
    assert not handle.model.training
    assert not any(p.requires_grad for p in handle.model.parameters())
    assert list(dict.fromkeys(seen)) == ["verify", "load", "check"]


def test_row_1_a_truncated_file_is_named_with_both_sizes(folder: Path) -> None:
    path = folder / "model.safetensors"
    whole = path.stat().st_size
    path.write_bytes(path.read_bytes()[:-100])
    text = refused(folder)
    assert "model.safetensors" in text and str(whole) in text and str(whole - 100) in text


@pytest.mark.parametrize(
    "content",
    [
        (2**64 - 1).to_bytes(8, "little") + b"{}",
        b"",
        b"1234",
        (7).to_bytes(8, "little") + b"notjson",
        (2).to_bytes(8, "little") + b"[]",
        (2).to_bytes(8, "little") + b"{}trailing",
    ],
    ids=["row-2-huge-header", "row-3-empty", "row-3-short", "no-json", "no-object", "trailing"],
)
def test_rows_2_and_3_absurd_headers_are_refused(folder: Path, content: bytes) -> None:
    (folder / "model.safetensors").write_bytes(content)
    assert "model.safetensors is damaged" in refused(folder)


def test_overlapping_tensors_are_refused(tmp_path: Path) -> None:
    entry = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
    header = json.dumps({"a": entry, "b": entry}).encode()
    path = tmp_path / "x.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"\0" * 8)
    with pytest.raises(ModelFileError, match="does not describe its tensors"):
        read_safetensors_header(path)


def test_row_4_and_23_flipped_bytes_that_make_nan_are_named(folder: Path) -> None:
    path = folder / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-4:] = struct.pack("<f", float("nan"))
    path.write_bytes(bytes(content))
    assert "not finite" in refused(folder)


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
def test_row_23_the_tensor_that_is_not_finite_is_named(folder: Path, value: float) -> None:
    name = "model.layers.1.mlp.up_proj.weight"
    edit_tensors(folder, lambda t: t[name].view(-1)[5:6].fill_(value))
    assert name in refused(folder)


def test_row_23_huge_but_finite_weights_pass(folder: Path) -> None:
    name = "model.layers.1.mlp.up_proj.weight"
    edit_tensors(folder, lambda t: t[name].fill_(3e38))  # their sum overflows
    assert load_model(str(folder)).info.family == "llama"


def test_row_5_missing_tensors_are_listed(folder: Path) -> None:
    name = "model.layers.0.self_attn.q_proj.weight"
    edit_tensors(folder, lambda t: t.pop(name))
    text = refused(folder)
    assert name in text and "missing" in text


def test_row_6_wrong_shapes_are_listed(folder: Path) -> None:
    name = "model.layers.0.mlp.down_proj.weight"
    edit_tensors(folder, lambda t: t.update({name: torch.zeros(3, 5)}))
    text = refused(folder)
    assert f"{name} (3, 5) instead of (32, 64)" in text


def test_row_7_extra_tensors_are_a_warning(folder: Path) -> None:
    edit_tensors(folder, lambda t: t.update({"spare.weight": torch.zeros(2)}))
    handle = load_model(str(folder))
    assert any("spare.weight" in warning for warning in handle.info.warnings)


def shard(folder: Path) -> list[Path]:
    tensors = load_file(folder / "model.safetensors")
    names = sorted(tensors)
    parts = {"one-1.safetensors": names[::2], "two-2.safetensors": names[1::2]}
    for file, part in parts.items():
        save_file({n: tensors[n] for n in part}, folder / file, metadata={"format": "pt"})
    places = {name: file for file, part in parts.items() for name in part}
    index = {"metadata": {"total_size": 0}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "model.safetensors").unlink()
    return [folder / file for file in parts]


def test_row_8_a_missing_shard_is_named(folder: Path) -> None:
    shards = shard(folder)
    assert load_model(str(folder)).info.family == "llama"
    shards[1].unlink()
    assert "two-2.safetensors is missing" in refused(folder)


def test_a_shard_outside_the_folder_is_refused(folder: Path) -> None:
    shard(folder)
    path = folder / "model.safetensors.index.json"
    path.write_text(path.read_text().replace("two-2", "../two-2"))
    assert "refused" in refused(folder)


def test_row_9_no_config(folder: Path) -> None:
    (folder / "config.json").unlink()
    assert "There is no config.json in" in refused(folder)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{not json", "not valid JSON"),
        (b"\xff\xfe\x00", "not valid JSON"),
        (b"[]", "JSON object"),
        (b'{"a": "' + b"x" * 1_000_001 + b'"}', "is refused"),
        (b'{"a":' * 40 + b"1" + b"}" * 40, "levels deep"),
        (b"[" * 400_000, "levels deep"),
        (b"[" * 200_000 + b"]" * 200_000, "levels deep"),
    ],
    ids=["text", "bytes", "list", "large", "deep", "deep-open", "very-deep"],
)
def test_row_10_config_that_is_no_sane_json(folder: Path, content: bytes, message: str) -> None:
    (folder / "config.json").write_bytes(content)
    assert message in refused(folder)


@pytest.mark.parametrize("model_type", ["resnet", "", None, 3])
def test_row_11_unknown_architectures_are_refused_with_a_list(
    folder: Path, model_type: object
) -> None:
    edit_config(folder, model_type=model_type)
    text = refused(folder, UnknownArchitectureError)
    assert "gpt2" in text and "llama" in text


def test_row_12_code_of_its_own_is_a_warning_here_and_refused_for_guests(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    edit_config(folder, auto_map={"AutoModelForCausalLM": "evil.Model"})
    (folder / "evil.py").write_text(f"open({str(folder / 'ran')!r}, 'w')")
    handle = load_model(str(folder))
    assert any("auto_map" in warning for warning in handle.info.warnings)
    assert not (folder / "ran").exists()
    for mode in ("team", "public"):
        monkeypatch.setenv("PRUNE_MODE", mode)
        with pytest.raises(ModelFileError, match="auto_map"):
            read_config(folder)


@pytest.mark.parametrize(
    "change",
    [
        {"_attn_implementation_internal": "owner/kernel"},
        {"_attn_implementation": "eager"},
        {"attn_implementation": "owner/kernel"},
        {"trust_remote_code": True},
        {"rope_scaling": {"_hidden": 1}},
        {"text_config": {"sub": [{"trust_remote_code": True}]}},
        {"_attn_implementation_autoset": "owner/kernel"},
    ],
)
def test_row_13_dangerous_keys_are_refused(folder: Path, change: dict[str, Any]) -> None:
    edit_config(folder, **change)
    assert "refused key" in refused(folder)


def test_keys_that_transformers_writes_itself_pass(folder: Path) -> None:
    edit_config(folder, _name_or_path="a/b", _attn_implementation_autoset=True)
    assert load_model(str(folder)).info.family == "llama"


def test_quantized_checkpoints_are_refused(folder: Path) -> None:
    edit_config(folder, quantization_config={"quant_method": "gptq"})
    assert "stored quantized" in refused(folder)


def test_row_14_heads_that_do_not_divide(folder: Path) -> None:
    edit_config(folder, num_attention_heads=5, head_dim=None)
    assert "5 heads" in refused(folder) and "32" in refused(folder)
    edit_config(folder, num_attention_heads=4, num_key_value_heads=3)
    assert "3 key/value heads" in refused(folder)


@pytest.mark.parametrize(
    "change",
    [
        {"num_hidden_layers": 1_000_000},
        {"num_hidden_layers": -1},
        {"num_hidden_layers": 2.5},
        {"num_hidden_layers": True},
        {"num_hidden_layers": "2"},
        {"hidden_size": 70_000},
        {"vocab_size": 10**7},
        {"vocab_size": 0},
        {"intermediate_size": 10**9},
    ],
)
def test_row_15_sizes_out_of_bounds_are_refused_before_anything_is_built(
    folder: Path, change: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", None)
    edit_config(folder, **change)
    assert next(iter(change)) in refused(folder)


def test_row_16_a_model_without_layers_loads(tmp_path: Path) -> None:
    path = tmp_path / "empty"
    LlamaForCausalLM(llama_config(num_hidden_layers=0)).save_pretrained(path)
    make_tokenizer().save_pretrained(path)
    info = load_model(str(path)).info
    assert info.blocks == () and info.layers == () and info.prunable == 0


class Evil:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.marker,))


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.ckpt"])
def test_row_18_pickles_are_refused_and_not_opened(folder: Path, name: str) -> None:
    (folder / "model.safetensors").unlink()
    marker = folder / "ran"
    (folder / name).write_bytes(pickle.dumps(Evil(marker)))
    text = refused(folder)
    assert name in text and "safetensors" in text
    assert not marker.exists()
    pickle.loads((folder / name).read_bytes())  # the trap does work
    assert marker.exists()


def test_a_folder_without_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    assert "There is no model.safetensors" in refused(folder)


def test_row_21_no_tokenizer(folder: Path) -> None:
    for path in folder.glob("tokenizer*"):
        path.unlink()
    assert "There is no tokenizer" in refused(folder)


def test_row_21_a_tokenizer_larger_than_the_embedding(folder: Path) -> None:
    make_tokenizer(41).save_pretrained(folder)
    text = refused(folder)
    assert "token 40" in text and "40 rows" in text


def test_row_21_a_damaged_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{}")
    assert "tokenizer" in refused(folder)


def test_row_22_tied_embeddings_are_not_missing_and_stay_tied(tmp_path: Path) -> None:
    path = tmp_path / "tied"
    LlamaForCausalLM(llama_config(tie_word_embeddings=True)).save_pretrained(path)
    make_tokenizer().save_pretrained(path)
    assert "lm_head.weight" not in load_file(path / "model.safetensors")
    handle = load_model(str(path))
    assert handle.model.lm_head.weight is handle.model.model.embed_tokens.weight
    assert handle.info.tied_embeddings


def test_row_24_links_out_of_the_folder_are_refused(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PRUNE_MODEL_ROOTS", str(folder))
    elsewhere = tmp_path / "elsewhere.json"
    (folder / "config.json").rename(elsewhere)
    (folder / "config.json").symlink_to(elsewhere)
    assert "outside the allowed folders" in refused(folder)


def test_row_25_files_that_cannot_be_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(self: Path, *_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_text", denied)
        assert "cannot be read (Permission denied)" in refused(folder)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "iterdir", denied)
        assert "cannot be read" in refused(folder)


def test_encoders_are_read_with_their_language_head_if_they_have_one(tmp_path: Path) -> None:
    config = BertConfig(
        vocab_size=40,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=32,
    )
    kinds = {
        "plain": BertModel(config),
        "unpooled": BertModel(config, add_pooling_layer=False),
        "head": BertForMaskedLM(config),
    }
    for name, model in kinds.items():
        model.save_pretrained(tmp_path / name)
        make_tokenizer().save_pretrained(tmp_path / name)
        loaded = load_model(str(tmp_path / name)).model
        assert type(loaded) is type(model)
        assert set(loaded.state_dict()) == set(model.state_dict())


@pytest.mark.parametrize(
    ("model_types", "expected"),
    [
        ("gpt2 opt gpt_neox llama mistral qwen2 qwen3 gemma phi phi3", "AutoModelForCausalLM"),
        ("t5 bart marian", "AutoModelForSeq2SeqLM"),
        ("bert roberta distilbert", "AutoModel"),
    ],
)
def test_every_kind_of_model_has_its_class(model_types: str, expected: str) -> None:
    for model_type in model_types.split():
        assert model_class(model_type, ()).__name__ == expected, model_type


def test_dtypes_are_checked_and_part_of_the_fingerprint(folder: Path) -> None:
    whole, half = load_model(str(folder)), load_model(str(folder), dtype="bfloat16")
    assert half.model.lm_head.weight.dtype is torch.bfloat16
    assert whole.info.fingerprint != half.info.fingerprint
    with pytest.raises(SourceError, match="dtype must be"):
        load_model(str(folder), dtype="int8")


def test_a_fingerprint_follows_the_contents_and_not_the_place(folder: Path, tmp_path: Path) -> None:
    first = folder_fingerprint(folder, "float32")
    assert folder_fingerprint(shutil.copytree(folder, tmp_path / "b"), "float32") == first
    edit_tensors(folder, lambda t: t["lm_head.weight"].view(-1)[0:1].add_(1))
    assert folder_fingerprint(folder, "float32") != first


def test_a_files_hash_is_remembered_until_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"abc")
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert file_sha256(path) == known
    with monkeypatch.context() as patch:
        patch.setattr("prune_core.models.fingerprint.hash_file", None)
        assert file_sha256(path) == known
    path.write_bytes(b"abcd")
    assert file_sha256(path) != known


def test_loading_can_be_cancelled(folder: Path) -> None:
    with pytest.raises(Cancelled):
        load_model(str(folder), progress=Progress(cancelled=lambda: True))


def test_the_memory_guard_gives_numbers(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available_bytes", lambda: 100_000)
    text = refused(folder, MemoryGuardError)
    assert "GB" in text and "80 %" in text


@pytest.mark.parametrize(
    ("available", "advice"),
    [(11_000_000_000, None), (9_900_000_000, "bfloat16 would fit"), (10**9, "smaller model")],
)
def test_the_memory_guard_counts_a_model_and_its_working_copy(
    available: int, advice: str | None
) -> None:
    # 1e9 weights: 4 GB and 4 GB for the copy; 80 % of what is free may be used
    if advice is None:
        guard_memory("m", 10**9, dtype="float32", vocabulary=0, available=available)
        return
    with pytest.raises(MemoryGuardError, match=advice):
        guard_memory("m", 10**9, dtype="float32", vocabulary=0, available=available)


def test_row_64_the_smaller_limit_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_machine_bytes", lambda: 10**9)
    for group, expected in ((10**8, 10**8), (10**10, 10**9), (None, 10**9)):
        monkeypatch.setattr(memory, "_group_bytes", lambda group=group: group)
        assert memory.available_bytes() == expected


# GGUF ---------------------------------------------------------------------------------------------


def permuted(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """The order of rows that llama.cpp stores query and key projections in."""
    rows, columns = weight.shape
    halves = weight.reshape(heads, 2, rows // heads // 2, columns)
    return halves.swapaxes(1, 2).reshape(rows, columns)


GGUF_NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


def write_gguf(path: Path, model: LlamaForCausalLM, skip: str = "") -> Path:
    config = model.config
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("Tiny")
    writer.add_license("mit")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_dimension_count(config.hidden_size // config.num_attention_heads)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("gpt2")
    letters = [chr(ord("a") + i) for i in range(26)] + [str(i) for i in range(10)]
    writer.add_token_list(["<unk>", "<s>", "</s>", *letters, "ab"])
    writer.add_token_types([3, 3, 3, *[1] * 37])
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_chat_template("{% for m in messages %}{{ m['content'] }}{% endfor %}")
    for name, weight in model.state_dict().items():
        parts = name.split(".")
        if name == "model.embed_tokens.weight":
            stored = "token_embd.weight"
        elif name == "model.norm.weight":
            stored = "output_norm.weight"
        elif name == "lm_head.weight":
            stored = "output.weight"
        else:
            stored = f"blk.{parts[2]}.{GGUF_NAMES['.'.join(parts[3:-1])]}.weight"
        if "q_proj" in name:
            weight = permuted(weight, config.num_attention_heads)
        if "k_proj" in name:
            weight = permuted(weight, config.num_key_value_heads)
        values = weight.numpy()
        if stored == skip:
            continue
        if stored.startswith("blk.") and values.ndim == 2:
            kind = gguf.GGMLQuantizationType.Q4_1
            writer.add_tensor(stored, gguf.quantize(values, kind), raw_dtype=kind)
        else:
            writer.add_tensor(stored, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture(scope="module")
def llama() -> LlamaForCausalLM:
    torch.manual_seed(1)
    return LlamaForCausalLM(llama_config()).eval()


@pytest.fixture(scope="module")
def good_gguf(tmp_path_factory: pytest.TempPathFactory, llama: LlamaForCausalLM) -> Path:
    return write_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf", llama)


@pytest.fixture
def gguf_file(good_gguf: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(good_gguf, tmp_path / "tiny.gguf"))


def quantized_once(weight: torch.Tensor) -> torch.Tensor:
    kind = gguf.GGMLQuantizationType.Q4_1
    return torch.from_numpy(gguf.dequantize(gguf.quantize(weight.numpy(), kind), kind))


def test_a_gguf_becomes_the_same_weights_bit_for_bit(
    gguf_file: Path, llama: LlamaForCausalLM
) -> None:
    seen: list[tuple[str, int, int, str]] = []
    handle = load_model(
        str(gguf_file),
        progress=Progress(lambda e: seen.append((e["stage"], e["done"], e["total"], e["unit"]))),
    )
    loaded = handle.model.state_dict()
    for name, weight in llama.state_dict().items():
        linear = "_proj" in name
        # Q4_1 blocks lie within rows, so reordering rows and quantizing commute
        expected = quantized_once(weight) if linear else weight
        assert torch.equal(loaded[name], expected), name
    assert handle.info.quantized == "Q4_1" and handle.info.license == "mit"
    assert handle.info.has_chat_template
    assert handle.tokenizer.decode(handle.tokenizer("ab")["input_ids"]) == "ab"
    assert (handle.tokenizer.bos_token_id, handle.tokenizer.eos_token_id) == (1, 2)
    steps = [a for a in seen if a[0] == "convert"]
    assert steps[0][1] == 0 and steps[-1][1] == steps[-1][2]


def test_a_gguf_is_converted_once(gguf_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load_model(str(gguf_file))
    monkeypatch.setattr(convert, "_write", None)
    second = load_model(str(gguf_file))
    assert second.info.fingerprint == first.info.fingerprint
    assert second.info.quantized == "Q4_1"


def test_row_4_a_damaged_conversion_is_done_again(gguf_file: Path) -> None:
    sha256 = file_sha256(gguf_file)
    weights = convert_gguf(gguf_file, sha256) / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert (convert_gguf(gguf_file, sha256) / "model.safetensors").read_bytes() == whole


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", convert.RECORD])
def test_a_conversion_with_another_digit_anywhere_is_done_again(gguf_file: Path, name: str) -> None:
    sha256 = file_sha256(gguf_file)
    file = convert_gguf(gguf_file, sha256) / name
    whole = file.read_text()
    place = max(whole.rfind(digit) for digit in "123456789")
    file.write_text(whole[:place] + str(int(whole[place]) % 9 + 1) + whole[place + 1 :])
    assert convert.converted_record(sha256) is None
    assert (convert_gguf(gguf_file, sha256) / name).read_text() == whole


def test_row_44_a_conversion_on_a_full_disk_leaves_nothing(
    gguf_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PRUNE_FAULTS", "convert.before_replace=disk-full")
    sha256 = file_sha256(gguf_file)
    with pytest.raises(ModelFileError, match="disk is full"):
        convert_gguf(gguf_file, sha256)
    assert not converted_path(sha256).exists()
    assert not list((tmp_path / "cache" / "models").glob(".tmp-*"))


def test_row_44_a_conversion_that_the_disk_cuts_short_leaves_nothing(
    gguf_file: Path, tmp_path: Path
) -> None:
    resource = pytest.importorskip("resource")
    sha256 = file_sha256(gguf_file)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(ModelFileError, match="disk is full"):
            convert_gguf(gguf_file, sha256)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not converted_path(sha256).exists()
    assert not list((tmp_path / "cache" / "models").glob(".tmp-*"))


def test_a_conversion_can_be_cancelled(gguf_file: Path, tmp_path: Path) -> None:
    polls = iter([False] * 5)
    with pytest.raises(Cancelled):
        convert_gguf(gguf_file, "0" * 64, progress=Progress(cancelled=lambda: next(polls, True)))
    assert not list((tmp_path / "cache" / "models").glob(".tmp-*"))


def test_a_gguf_without_one_of_its_tensors_is_refused(
    tmp_path: Path, llama: LlamaForCausalLM
) -> None:
    path = write_gguf(tmp_path / "x.gguf", llama, skip="blk.1.ffn_up.weight")
    assert "model.layers.1.mlp.up_proj.weight" in refused(path)


def test_row_19_damaged_gguf_files_get_one_message(gguf_file: Path) -> None:
    whole = gguf_file.read_bytes()
    damaged = {
        "magic": b"GGUX" + whole[4:],
        "empty": b"",
        "version": whole[:4] + (9).to_bytes(4, "little") + whole[8:],
        "fields": whole[:16] + (2**62).to_bytes(8, "little") + whole[24:],
        "tensors": whole[:8] + (2**62).to_bytes(8, "little") + whole[16:],
        "cut in the weights": whole[:-200],
        "cut in the header": whole[:300],
        "cut in the first word": whole[:10],
    }
    for content in damaged.values():
        gguf_file.write_bytes(content)
        assert "The GGUF file tiny.gguf is damaged" in refused(gguf_file)


def test_row_20_a_type_that_cannot_be_read_is_named(gguf_file: Path) -> None:
    content = gguf_file.read_bytes()
    name = b"blk.0.attn_q.weight"
    place = content.index(name) + len(name) + 4 + 2 * 8
    for number, word in ((int(gguf.GGMLQuantizationType.Q8_K), "Q8_K"), (9999, "9999")):
        kind = number.to_bytes(4, "little")
        gguf_file.write_bytes(content[:place] + kind + content[place + 4 :])
        text = refused(gguf_file)
        assert "blk.0.attn_q.weight" in text and word in text


def test_the_list_of_readable_types_is_that_of_the_gguf_package() -> None:
    readable = set()
    for kind, (block, size) in gguf.GGML_QUANT_SIZES.items():
        try:
            with np.errstate(all="ignore"):
                gguf.dequantize(np.zeros((1, size), dtype=np.uint8), kind)
        except NotImplementedError:
            continue
        readable.add(kind.name)
        assert block > 0
    assert readable == DEQUANTIZABLE


def test_a_gguf_header_is_read_without_its_weights(gguf_file: Path) -> None:
    header = read_gguf_header(gguf_file)
    reader = gguf.GGUFReader(gguf_file)
    assert header.architecture == "llama" and header.quantization == "Q4_1"
    assert {n: (k, s) for n, (k, s) in header.tensors.items()} == {
        t.name: (t.tensor_type.name, tuple(int(x) for x in t.shape)) for t in reader.tensors
    }


# the real one -------------------------------------------------------------------------------------


@pytest.mark.real
def test_smollm2_is_its_gguf(monkeypatch: pytest.MonkeyPatch) -> None:
    from prune_core.assets.fetch import fetch_asset

    monkeypatch.delenv("PRUNE_CACHE_DIR")
    handle = load_model("smollm2-135m")
    config, loaded = handle.model.config, handle.model.state_dict()
    tensors = {t.name: t for t in gguf.GGUFReader(fetch_asset("smollm2-135m")).tensors}
    for block in (0, 29):
        for ours, theirs in GGUF_NAMES.items():
            tensor = tensors[f"blk.{block}.{theirs}.weight"]
            values = torch.from_numpy(gguf.dequantize(tensor.data, tensor.tensor_type).copy())
            weight = loaded[f"model.layers.{block}.{ours}.weight"]
            heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
            if theirs in heads:
                weight = permuted(weight, heads[theirs])
            assert torch.equal(weight, values.reshape(weight.shape)), (block, ours)
    assert handle.info.quantized == "Q4_1" and handle.info.tied_embeddings
    assert handle.info.parameters == 134_515_008 and handle.info.prunable == 106_168_320
    assert handle.info.license == "Apache-2.0" and handle.info.has_chat_template
    tokenizer = handle.tokenizer
    assert (tokenizer.bos_token, tokenizer.eos_token) == ("<|im_start|>", "<|im_end|>")
    assert handle.model.generation_config.eos_token_id == tokenizer.eos_token_id == 2
    asked = [{"role": "user", "content": "Hi"}]
    prompt = tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
    assert prompt.endswith("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n")
    with monkeypatch.context() as patch:
        patch.setattr(convert, "_write", None)  # nothing left to convert
        assert load_model("smollm2-135m").info.fingerprint == handle.info.fingerprint
