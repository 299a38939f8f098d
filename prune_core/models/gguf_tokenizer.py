"""The tokenizer that the fields of a GGUF file describe, built with the ``tokenizers`` library.

How text is cut before the merges is named by ``tokenizer.ggml.pre``; the rules are those of the
models' own tokenizers. A rule that is not known here is refused: other cuts are other numbers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prune_core.errors import ModelFileError
from prune_core.models.gguf_fields import GgufFields
from prune_core.models.sources import shown
from prune_core.sentences import Sentence

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerBase

_UNKNOWN, _CONTROL, _USER_DEFINED, _UNUSED, _BYTE = 2, 3, 4, 5, 6

_ENGLISH_ENDS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_REST = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_UPPER, _LOWER = r"\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}", r"\p{Ll}\p{Lm}\p{Lo}\p{M}"


def _words_and_digits(most: str) -> str:
    """The cut of Llama 3 and Qwen: words with what stands before them, digits in groups."""
    return (
        rf"{_ENGLISH_ENDS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{most}"
        rf"| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{_REST}"
    )


def _cased_words(ends: str, digits: str) -> str:
    """The cut of GPT-4o and Mistral's Tekken: words also end where capitals begin."""
    start = r"[^\r\n\p{L}\p{N}]?"
    return (
        rf"{start}[{_UPPER}]*[{_LOWER}]+{ends}|{start}[{_UPPER}]+[{_LOWER}]*{ends}"
        rf"|{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_REST}"
    )


_GPT2, _DIGITS = "gpt2", "digits"  # the byte level's own cut, alone or after every digit
_LLAMA3, _QWEN2 = _words_and_digits("{1,3}"), _words_and_digits("")
_GPT4O, _TEKKEN = _cased_words(_ENGLISH_ENDS + "?", r"\p{N}{1,3}"), _cased_words("", r"\p{N}")

PRE_TOKENIZERS: dict[str, str] = {
    **dict.fromkeys(("gpt-2", "phi-2", "olmo", "mpt", "roberta-bpe"), _GPT2),
    **dict.fromkeys(("smollm", "starcoder", "refact", "codeshell", "exaone"), _DIGITS),
    **dict.fromkeys(("command-r", "minerva-7b"), _DIGITS),
    **dict.fromkeys(("llama3", "llama-v3", "llama-bpe", "falcon3", "pixtral"), _LLAMA3),
    **dict.fromkeys(("dbrx", "smaug-bpe"), _LLAMA3),
    **dict.fromkeys(("qwen2", "deepseek-r1-qwen", "megrez"), _QWEN2),
    **dict.fromkeys(("gpt-4o", "llama4"), _GPT4O),
    "tekken": _TEKKEN,
}
"""``tokenizer.ggml.pre`` to the cut: a regular expression, ``gpt2`` or ``digits``."""

_WHOLE_WORDS = {"llama3", "llama-v3", "llama-bpe", "falcon3", "pixtral", "tekken"}
# a piece that is a token is one, whatever the merges say: so do these tokenizers and llama.cpp
_COMPOSED = {"qwen2", "deepseek-r1-qwen", "megrez", "olmo"}  # letters and accents become one (NFC)
_BY_ARCHITECTURE = {"gptneox": "olmo", "qwen2": "qwen2", "qwen3": "qwen2"}
_ADDS_BOS = {*_WHOLE_WORDS}


def _unnamed_cut(name: str) -> Sentence:
    return Sentence(
        "The GGUF file does not say how its tokenizer cuts text (tokenizer.ggml.pre); the cut of "
        "{name} is used, and the numbers are wrong if it is another.",
        name=name,
    )


_NAMED = {
    "bos_token": "bos_token_id",
    "eos_token": "eos_token_id",
    "unk_token": "unknown_token_id",
    "pad_token": "padding_token_id",
    "sep_token": "seperator_token_id",
    "cls_token": "cls_token_id",
    "mask_token": "mask_token_id",
}
_POINTERS = (
    *("eot", "eom", "prefix", "suffix", "middle", "fim_pre", "fim_suf", "fim_mid", "fim_pad"),
    *("fim_rep", "fim_sep"),
)


def gguf_tokenizer(
    fields: GgufFields, architecture: str, rows: int
) -> tuple[PreTrainedTokenizerBase, tuple[str, ...]]:
    """Build the tokenizer of a GGUF file.

    Args:
        fields: of the file; what is read is marked there.
        architecture: of the file.
        rows: of the embedding.

    Returns:
        The tokenizer, and warnings to show with the model.

    Raises:
        ModelFileError: a field is missing, of the wrong kind, or asks for what is not known here.
    """
    from transformers import PreTrainedTokenizerFast

    kind = fields.take("tokenizer.ggml.model", str, required=True)
    tokens = _tokens(fields, rows)
    types = _types(fields, len(tokens))
    warnings: tuple[str, ...] = ()
    if kind == "gpt2":
        backend, cut, unnamed = _byte_level(fields, architecture, tokens)
        adds_bos, adds_eos = cut in _ADDS_BOS, False
        warnings = (_unnamed_cut(cut),) if unnamed else ()
    elif kind == "llama":
        # found before blanks become ▁, so written with blanks (the converter does the same)
        tokens = [
            token.replace("▁", " ") if kind == _USER_DEFINED else token
            for token, kind in zip(tokens, types, strict=True)
        ]
        backend = _sentencepiece(fields, architecture, tokens, types)
        adds_bos, adds_eos = True, False
    elif kind == "t5":
        backend = _unigram(fields, tokens, types)
        adds_bos, adds_eos = False, True
    else:
        raise ModelFileError(
            "{name}: the GGUF field tokenizer.ggml.model is {kind}; only gpt2, llama and t5 can "
            "be read here.",
            name=fields.name,
            kind=shown(kind),
        )
    _add_tokens(backend, fields, tokens, types)
    special: dict[str, str] = {}
    for name, key in _NAMED.items():
        index = fields.take(f"tokenizer.ggml.{key}", int)
        if index is None:
            continue
        if not 0 <= index < len(tokens):
            raise ModelFileError(
                "{name}: the GGUF field tokenizer.ggml.{key} is {index}, but there are {count} "
                "tokens.",
                name=fields.name,
                key=key,
                index=index,
                count=len(tokens),
            )
        special[name] = tokens[index]
    for pointer in _POINTERS:
        fields.take(f"tokenizer.ggml.{pointer}_token_id", int)
    adds_bos = fields.take("tokenizer.ggml.add_bos_token", bool, adds_bos)
    adds_eos = fields.take("tokenizer.ggml.add_eos_token", bool, adds_eos)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        add_bos_token=adds_bos and "bos_token" in special,
        add_eos_token=adds_eos and "eos_token" in special,
        clean_up_tokenization_spaces=False,
        **dict.fromkeys(("bos_token", "eos_token")) | special,
    )
    template = fields.take("tokenizer.chat_template", str)
    if template:
        tokenizer.chat_template = template
    return tokenizer, warnings


def _tokens(fields: GgufFields, rows: int) -> list[str]:
    key = "tokenizer.ggml.tokens"
    tokens = fields.take(key, list, required=True)
    if not tokens or not all(isinstance(token, str) for token in tokens):
        raise ModelFileError(
            "{name}: the GGUF field {key} must be a list of texts.", name=fields.name, key=key
        )
    if len(tokens) > rows:
        raise ModelFileError(
            "{name}: {key} has {count} entries, but the model has embeddings for {rows}.",
            name=fields.name,
            key=key,
            count=len(tokens),
            rows=rows,
        )
    if len(set(tokens)) < len(tokens):
        last = {token: index for index, token in enumerate(tokens)}
        twice = next(token for index, token in enumerate(tokens) if last[token] != index)
        raise ModelFileError(
            "{name}: {key} holds {token} twice.",
            name=fields.name,
            key=key,
            token=shown(repr(twice)),
        )
    return tokens


def _types(fields: GgufFields, count: int) -> list[int]:
    key = "tokenizer.ggml.token_type"
    types = fields.take(key, list, [1] * count)
    if len(types) != count or not all(isinstance(one, int) and 0 <= one <= _BYTE for one in types):
        raise ModelFileError(
            "{name}: the GGUF field {key} must hold a number from 0 to {most} for each of the "
            "{count} tokens.",
            name=fields.name,
            key=key,
            most=_BYTE,
            count=count,
        )
    return types


def _scores(fields: GgufFields, count: int) -> list[float]:
    key = "tokenizer.ggml.scores"
    scores = fields.take(key, list, required=True)
    if len(scores) != count or not all(isinstance(one, (int, float)) for one in scores):
        raise ModelFileError(
            "{name}: the GGUF field {key} must hold a number for each of the {count} tokens.",
            name=fields.name,
            key=key,
            count=count,
        )
    return [float(one) for one in scores]


def _merges(fields: GgufFields, vocabulary: dict[str, int]) -> list[tuple[str, str]]:
    key = "tokenizer.ggml.merges"
    if key not in fields.values:
        raise ModelFileError(
            "{name}: the GGUF field {key} is missing, and without merges text cannot be cut into "
            "tokens; convert the model again with a newer converter.",
            name=fields.name,
            key=key,
        )
    merges: list[tuple[str, str]] = []
    for line in fields.take(key, list):
        left, _, right = str(line)[1:].partition(" ")  # a first blank can be the token itself
        pair = (str(line)[:1] + left, right)
        if not all(part in vocabulary for part in (*pair, "".join(pair))):
            raise ModelFileError(
                "{name}: {key} holds {line}, which joins no two tokens to a third.",
                name=fields.name,
                key=key,
                line=shown(repr(line)),
            )
        merges.append(pair)
    return merges


def _byte_level(
    fields: GgufFields, architecture: str, tokens: list[str]
) -> tuple[Tokenizer, str, bool]:
    """BPE over bytes; also the name of its cut, and whether the file left it open."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

    pre = fields.take("tokenizer.ggml.pre", str, "default")
    unnamed = pre == "default"
    if unnamed:
        pre = _BY_ARCHITECTURE.get(architecture, "gpt-2")
    if pre not in PRE_TOKENIZERS:
        raise ModelFileError(
            "{name}: the tokenizer cuts text by the rule {pre} (tokenizer.ggml.pre), which is not "
            "known here; known are {known}.",
            name=fields.name,
            pre=shown(pre),
            known=sorted(PRE_TOKENIZERS),
        )
    vocabulary = {token: index for index, token in enumerate(tokens)}
    backend = Tokenizer(
        models.BPE(
            vocab=vocabulary, merges=_merges(fields, vocabulary), ignore_merges=pre in _WHOLE_WORDS
        )
    )
    fields.take("tokenizer.ggml.scores", list)  # nothing of a byte-level tokenizer reads them
    spaced = fields.take("tokenizer.ggml.add_space_prefix", bool, False)
    cut = PRE_TOKENIZERS[pre]
    own = cut in (_GPT2, _DIGITS)
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=spaced, use_regex=own)
    steps: list[Any] = [] if cut == _GPT2 else [pre_tokenizers.Digits(individual_digits=True)]
    if not own:
        steps = [pre_tokenizers.Split(Regex(cut), behavior="isolated")]
    backend.pre_tokenizer = pre_tokenizers.Sequence([*steps, byte_level])
    if pre in _COMPOSED:
        backend.normalizer = normalizers.NFC()
    backend.decoder = decoders.ByteLevel()
    return backend, pre, unnamed and architecture not in ("gpt2", *_BY_ARCHITECTURE)


def _sentencepiece(
    fields: GgufFields, architecture: str, tokens: list[str], types: list[int]
) -> Tokenizer:
    """BPE of sentencepiece: the scores of the tokens are the order of the merges."""
    from tokenizers import Tokenizer, decoders, models, normalizers

    fields.insist("tokenizer.ggml.pre", str, ("default",))
    fields.insist("tokenizer.ggml.remove_extra_whitespaces", bool, (False,))
    vocabulary = {token: index for index, token in enumerate(tokens)}
    scores = _scores(fields, len(tokens))
    if "tokenizer.ggml.merges" in fields.values:
        merges = _merges(fields, vocabulary)
    else:
        merges = _merges_by_score(vocabulary, scores, types)
    unknown = next(
        (token for token, kind in zip(tokens, types, strict=True) if kind == _UNKNOWN), None
    )
    backend = Tokenizer(
        models.BPE(
            vocab=vocabulary,
            merges=merges,
            unk_token=unknown,
            fuse_unk=True,
            byte_fallback=_BYTE in types,
        )
    )
    # Gemma puts no blank before a text, and its first files did not say so
    spaced = fields.take(
        "tokenizer.ggml.add_space_prefix", bool, not architecture.startswith("gemma")
    )
    blank = [normalizers.Replace(" ", "▁")]
    backend.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), *blank] if spaced else blank
    )
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    backend.decoder = decoders.Sequence(
        [*steps, decoders.Strip(content=" ", left=1)] if spaced else steps
    )
    return backend


def _merges_by_score(
    vocabulary: dict[str, int], scores: list[float], types: list[int]
) -> list[tuple[str, str]]:
    """All pairs of tokens that make a third, the best score first."""
    joinable = {token for token, index in vocabulary.items() if types[index] in (0, 1, _UNUSED)}
    ranked: list[tuple[float, int, int, int, str, str]] = []
    for token in joinable:
        for place in range(1, len(token)):
            left, right = token[:place], token[place:]
            if left in joinable and right in joinable:
                order = (
                    -scores[vocabulary[token]],
                    vocabulary[token],
                    vocabulary[left],
                    vocabulary[right],
                )
                ranked.append((*order, left, right))
    return [(left, right) for *_, left, right in sorted(ranked)]


def _unigram(fields: GgufFields, tokens: list[str], types: list[int]) -> Tokenizer:
    """The unigram model of sentencepiece, as T5 uses it."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

    fields.insist("tokenizer.ggml.pre", str, ("default",))
    scores = _scores(fields, len(tokens))
    unknown = next((index for index, kind in enumerate(types) if kind == _UNKNOWN), None)
    backend = Tokenizer(
        models.Unigram(
            list(zip(tokens, scores, strict=True)), unk_id=unknown, byte_fallback=_BYTE in types
        )
    )
    steps: list[Any] = []
    charsmap = fields.take("tokenizer.ggml.precompiled_charsmap", list)
    if charsmap:
        steps.append(normalizers.Precompiled(bytes(one & 255 for one in charsmap)))
    if fields.take("tokenizer.ggml.remove_extra_whitespaces", bool, True):
        steps += [normalizers.Strip(), normalizers.Replace(Regex(" {2,}"), " ")]
    backend.normalizer = normalizers.Sequence(steps)
    spaced = fields.take("tokenizer.ggml.add_space_prefix", bool, True)
    scheme = "always" if spaced else "never"
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
    backend.decoder = decoders.Metaspace(prepend_scheme=scheme)
    return backend


def _add_tokens(
    backend: Tokenizer, fields: GgufFields, tokens: list[str], types: list[int]
) -> None:
    """Tokens that are found in a text before it is cut: control tokens, and the user's own."""
    from tokenizers import AddedToken

    extra = fields.take("tokenizer.ggml.added_tokens", list, [])
    missing = next((token for token in extra if token not in set(tokens)), None)
    if missing is not None:
        raise ModelFileError(
            "{name}: tokenizer.ggml.added_tokens holds {token}, which is not one of "
            "tokenizer.ggml.tokens.",
            name=fields.name,
            token=shown(repr(missing)),
        )
    own = {*extra}
    special: list[AddedToken] = []
    plain: list[AddedToken] = []
    for token, kind in zip(tokens, types, strict=True):
        if kind in (_CONTROL, _UNKNOWN):
            special.append(AddedToken(token, normalized=False, special=True))
        elif kind == _USER_DEFINED or token in own:
            plain.append(AddedToken(token, normalized=False, special=False))
    backend.add_special_tokens(special)
    backend.add_tokens(plain)
