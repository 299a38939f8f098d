"""Texts: read strictly, cut by the convention."""

from __future__ import annotations

import csv
import json
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from prune_core.errors import TextError
from prune_core.jobs.base import TextSpec
from prune_core.texts import reading as texts
from prune_core.texts.reading import read_text, text_choices
from prune_core.texts.windows import token_windows

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@pytest.fixture(autouse=True)
def local_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PRUNE_MODE", raising=False)


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    """One token per letter or blank; special tokens would be added if asked for."""
    from tokenizers import Regex, Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Split
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    letters = {letter: i for i, letter in enumerate("?<> abcdefghijklmnopqrstuvwxyz")}
    backend = Tokenizer(WordLevel(letters, unk_token="?"))
    backend.pre_tokenizer = Split(Regex("."), "isolated")
    backend.post_processor = TemplateProcessing(
        single="< $A >", special_tokens=[("<", letters["<"]), (">", letters[">"])]
    )
    return PreTrainedTokenizerFast(tokenizer_object=backend, model_max_length=16)


def ids(text: str) -> list[int]:
    return ["?<> abcdefghijklmnopqrstuvwxyz".index(letter) for letter in text]


def test_windows_follow_the_convention(tokenizer: PreTrainedTokenizerBase) -> None:
    windows = token_windows(tokenizer, "abcdefghijklm", seq_len=4, windows=2)
    assert windows.tolist() == [ids("abcd"), ids("efgh")]
    assert windows.dtype.__str__() == "torch.int64"
    skipped = token_windows(tokenizer, "abcdefghijklm", seq_len=4, windows=9, skip_tokens=3)
    assert skipped.tolist() == [ids("defg"), ids("hijk")]


def test_a_short_text_gives_one_short_window(tokenizer: PreTrainedTokenizerBase) -> None:
    assert token_windows(tokenizer, "abc", seq_len=8, windows=3).tolist() == [ids("abc")]
    assert token_windows(tokenizer, "ab", seq_len=8, windows=1).tolist() == [ids("ab")]


@pytest.mark.parametrize("text", ["", "a"])
def test_rows_35_and_36_too_few_tokens(tokenizer: PreTrainedTokenizerBase, text: str) -> None:
    with pytest.raises(TextError, match="needs at least 2 tokens"):
        token_windows(tokenizer, text, seq_len=8, windows=1)


def test_skipping_everything_is_too_few_tokens(tokenizer: PreTrainedTokenizerBase) -> None:
    with pytest.raises(TextError, match="needs at least 2 tokens"):
        token_windows(tokenizer, "abcdef", seq_len=2, windows=1, skip_tokens=5)


@pytest.mark.parametrize(("seq_len", "windows", "skip"), [(1, 1, 0), (4, 0, 0), (4, 1, -1)])
def test_impossible_windows_are_refused(
    tokenizer: PreTrainedTokenizerBase, seq_len: int, windows: int, skip: int
) -> None:
    with pytest.raises(TextError):
        token_windows(tokenizer, "abcdef", seq_len=seq_len, windows=windows, skip_tokens=skip)


def test_row_37_windows_beyond_the_context_are_refused(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    with pytest.raises(TextError, match="longer than the model's context of 4"):
        token_windows(tokenizer, "abcdefgh", seq_len=5, windows=1, max_context=4)
    assert token_windows(tokenizer, "abcd", seq_len=4, windows=1, max_context=4).shape == (1, 4)


def test_a_long_text_does_not_warn(
    tokenizer: PreTrainedTokenizerBase, caplog: pytest.LogCaptureFixture
) -> None:
    import transformers

    transformers.utils.logging.enable_propagation()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            token_windows(tokenizer, "abcd " * 100, seq_len=8, windows=1)
    finally:
        transformers.utils.logging.disable_propagation()
    assert not caplog.records


def from_file(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    return read_text(TextSpec("file", str(path)))


@pytest.mark.parametrize("name", ["a.txt", "a.md", "a", "a.TXT"])
def test_plain_files_are_read_whole(tmp_path: Path, name: str) -> None:
    assert from_file(tmp_path / name, "naïve 🌍 שלום\n".encode()) == "naïve 🌍 שלום\n"


def test_a_byte_order_mark_is_dropped(tmp_path: Path) -> None:
    assert from_file(tmp_path / "a.txt", b"\xef\xbb\xbfhello") == "hello"


def test_the_text_of_jsonl_and_csv_is_taken(tmp_path: Path) -> None:
    lines = [json.dumps({"text": "one", "id": 1}), "", json.dumps("two")]
    assert from_file(tmp_path / "a.jsonl", "\n".join(lines).encode()) == "one\n\ntwo"
    with (tmp_path / "b.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([["id", "text"], ["1", "one,\nor"], ["2", "two"]])
    assert read_text(TextSpec("file", str(tmp_path / "b.csv"))) == "one,\nor\n\ntwo"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"caf\xe9", r"not UTF-8 \(byte 3\)"),
        ("a.txt", b"a\0b", "NUL"),
        ("a.txt", b"", "is empty; at least 2 tokens"),
        ("a.txt", b" \n\t ", "is empty"),
        ("a.bin", b"text", "is no text file"),
        ("a.zip", b"PK", "is no text file"),
        ("a.jsonl", b'{"text": "x"}\nnonsense', "Line 2 of a.jsonl is not JSON"),
        ("a.jsonl", b'{"body": "x"}', 'has no "text"'),
        ("a.jsonl", b'"\\ud800 half"', "not valid Unicode"),
        ("a.csv", b"id,body\n1,x\n", "no column called text"),
    ],
)
def test_row_38_files_that_are_no_text_are_refused(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    with pytest.raises(TextError, match=message):
        from_file(tmp_path / name, content)


def test_large_missing_and_impossible_files_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(texts, "MAX_FILE_BYTES", 10)
    with pytest.raises(TextError, match="at most"):
        from_file(tmp_path / "a.txt", b"x" * 11)
    for value in (str(tmp_path / "none.txt"), str(tmp_path), "a\0b.txt", "x" * 5000, ""):
        with pytest.raises(TextError):
            read_text(TextSpec("file", value))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("", "empty"),
        ("  ", "empty"),
        ("a\0", "NUL"),
        ("\ud800", "Unicode"),
        ("é" * 600_000, "1 MB"),
    ],
    ids=["empty", "blank", "nul", "surrogate", "large"],
)
def test_row_38_pasted_text_is_checked_too(value: str, message: str) -> None:
    with pytest.raises(TextError, match=message):
        read_text(TextSpec("inline", value))


@pytest.mark.parametrize("value", ["", "  "])
def test_no_name_is_no_file(value: str) -> None:
    with pytest.raises(TextError, match="No text is named; give the path"):
        read_text(TextSpec("file", value))


def test_pasted_text_is_read() -> None:
    assert read_text(TextSpec("inline", "a b\n" * 5)) == "a b\n" * 5


@pytest.mark.parametrize("mode", ["team", "public"])
def test_files_are_closed_to_guests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    monkeypatch.setenv("PRUNE_MODE", mode)
    with pytest.raises(TextError, match="paste the text"):
        from_file(tmp_path / "a.txt", b"secret")


@pytest.mark.parametrize("spec", [TextSpec("preset", "grim"), TextSpec("url", "http://x")])
def test_unknown_texts_are_refused(spec: TextSpec) -> None:
    with pytest.raises(TextError):
        read_text(spec)


def test_choices_show_license_and_provenance() -> None:
    rows = text_choices()
    assert [row["name"] for row in rows] == ["grimm", "andersen"]
    assert all(row["license"] and row["provenance"] for row in rows)


def test_a_preset_is_the_content_column_of_its_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = tmp_path / "tales.tab"
    table.write_text(
        "Kind\tContent\tType\n"
        "discrete\tstring\tdiscrete\n"
        "class\tinclude=True\tmeta\n"
        "\n"
        "magic\tOnce upon a time.\tx\n"
        'fable\tHe said: "No."\ty\n',
        encoding="utf-8",
    )
    monkeypatch.setattr(texts, "fetch_asset", lambda name, **_: table)
    assert read_text(TextSpec("preset", "grimm")) == 'Once upon a time.\n\nHe said: "No."'


@pytest.mark.real
@pytest.mark.parametrize(
    ("name", "tales", "length"), [("grimm", 44, 318052), ("andersen", 3, 55604)]
)
def test_real_presets_hold_their_tales(name: str, tales: int, length: int) -> None:
    text = read_text(TextSpec("preset", name))
    assert text.count("\n\n") == tales - 1
    assert len(text) == length + 2 * (tales - 1)
    assert not {"Tales of Magic", "include=True"} & set(text.split("\t"))


# ---- files as people have them ---------------------------------------------------------------


@pytest.mark.parametrize("name", ["wiki.test.raw", "wiki.test.tokens", "a.text", "README", "a.log"])
def test_any_ending_that_is_text(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text("The harbour\nslept.", encoding="utf-8")
    assert read_text(TextSpec("file", str(path))) == "The harbour\nslept."


@pytest.mark.parametrize("name", ["a.jsonl", "a.ndjson"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_line_separators_inside_json_strings(tmp_path: Path, name: str, end: str) -> None:
    parts = ["one\u2028two", "three\u2029", "four\x85five", "six\x0bseven\x1c", "\u2028"]
    lines = [json.dumps({"text": part}, ensure_ascii=False) for part in parts]
    path = tmp_path / name
    path.write_bytes("\ufeff".encode() + end.join([*lines, ""]).encode())
    assert read_text(TextSpec("file", str(path))) == "\n\n".join(parts)


@pytest.mark.parametrize(("name", "delimiter"), [("a.csv", ","), ("a.csv", ";"), ("a.tsv", "\t")])
def test_cells_of_any_length(tmp_path: Path, name: str, delimiter: str) -> None:
    long = "The harbour slept. " * 20_000  # Python's reader stops at 131,072 characters
    before = csv.field_size_limit()
    path = tmp_path / name
    with path.open("w", newline="", encoding="utf-8-sig") as stream:
        csv.writer(stream, delimiter=delimiter).writerows([["id", "text"], ["1", long], ["2", "x"]])
    assert read_text(TextSpec("file", str(path))) == f"{long}\n\nx"
    assert csv.field_size_limit() == before


LEGACY = {
    "cp1251": "Гавань ещё спала, когда пришёл корабль.",
    "koi8-r": "Гавань ещё спала, когда пришёл корабль.",
    "gb18030": "港口还在沉睡。船长数了两次。",
    "big5": "港口還在沉睡。船長數了兩次。",
    "shift_jis": "港はまだ眠っていた。船長は二度数えた。",
    "euc-jp": "港はまだ眠っていた。船長は二度数えた。",
    "euc-kr": "항구는 아직 자고 있었다.",
    "cp1252": "Der Hafen schlief noch, ein schöner Morgen für alle.",
    "UTF-16": "The harbour slept.",
}


@pytest.mark.parametrize("encoding", LEGACY)
def test_legacy_encodings_are_named_with_the_way_out(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "old.txt"
    path.write_bytes(LEGACY[encoding].encode(encoding))
    with pytest.raises(TextError) as caught:
        read_text(TextSpec("file", str(path)))
    assert f"iconv -f {encoding} -t UTF-8" in str(caught.value)


@pytest.mark.parametrize(
    ("start", "kind"), [(b"%PDF-1.7", "a PDF"), (b"PK\x03\x04", "ZIP"), (b"\x1f\x8b", "gzip")]
)
def test_other_kinds_under_the_name_of_a_text(tmp_path: Path, start: bytes, kind: str) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(start + bytes(range(200)))
    with pytest.raises(TextError, match=kind):
        read_text(TextSpec("file", str(path)))
