"""Read weights and tokenizer with transformers, and check what came out."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import transformers

from prune_core.errors import ModelFileError
from prune_core.models.families import FAMILIES
from prune_core.models.sources import shown
from prune_core.models.stored import Stored, read_state
from prune_core.sentences import Sentence

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

NOT_PASSED_ON = frozenset(
    {
        *("return_dict", "use_return_dict", "output_attentions", "output_hidden_states"),
        *("torchscript", "gradient_checkpointing", "attn_implementation", "fusion_config"),
        *("quantization_config", "compression_config", "quantization", "transformers_weights"),
        *("_flash_attn_2_enabled", "_attn_implementation_autoset", "use_flash_attention_2"),
    }
)
"""Keys of a configuration that change what a forward pass returns or how it is computed, and none
of the numbers: set for other programs than this one. How weights are stored is settled before."""


def read_model(
    folder: Path, config: dict[str, Any], stored: Stored, dtype: str
) -> tuple[PreTrainedModel, list[str]]:
    """Read a checked folder with transformers.

    Args:
        folder: holds config and safetensors.
        config: its configuration.
        stored: its weights.
        dtype: to load in.

    Returns:
        The model, and the names of tensors it has no place for.

    Raises:
        ModelFileError: tensors missing or misshapen, or transformers cannot read it.
    """
    names = tuple(stored.names.values())
    _check_head(config, names)
    extra: dict[str, Any] = {}
    auto_class = model_class(str(config["model_type"]), names, config.get("architectures"))
    pooler = FAMILIES[str(config["model_type"])].pooler
    bare = auto_class is transformers.AutoModel
    if bare and pooler and not any(".pooler." in f".{name}" for name in names):
        extra["add_pooling_layer"] = False
    try:
        with quiet():
            # transformers takes either a folder or tensors, the latter only by the class itself
            place: Path | None = folder
            settings = plain_config(config)
            if not stored.is_plain:
                place, auto_class = None, auto_class._model_mapping[type(settings)]
                extra["state_dict"] = read_state(stored, getattr(torch, dtype))
            model, info = auto_class.from_pretrained(
                place,
                config=settings,
                dtype=getattr(torch, dtype),
                trust_remote_code=False,
                use_safetensors=True,
                local_files_only=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # collected and refused below, with their shapes
                **extra,
            )
            marked = begins_with_mark(folder / "generation_config.json")
            if model.can_generate() and (place is None or marked):
                _set_generation(model, folder)
    except ModelFileError:
        raise
    except Exception as error:
        raise ModelFileError(
            "The model in {folder} cannot be read ({error}).",
            folder=shown(str(folder)),
            error=_first_line(error),
        ) from error
    mismatched = sorted(
        f"{name} {tuple(actual)} instead of {tuple(expected)}"
        for name, actual, expected in info["mismatched_keys"]
    )
    if mismatched:
        raise ModelFileError(
            "{count} tensors have the wrong shape: {names}.",
            count=len(mismatched),
            names=shown("; ".join(mismatched), 300),
        )
    missing = sorted(info["missing_keys"])
    if missing:
        raise ModelFileError(
            "{count} tensors of the model are missing from its files: {names}.",
            count=len(missing),
            names=shown(", ".join(missing), 300),
        )
    _tell_own_head(model)
    check_start(model)
    return model, sorted(info["unexpected_keys"])


def plain_config(config: Mapping[str, Any]) -> Any:
    """A configuration as transformers reads it, without what is meant for other set-ups.

    Args:
        config: of a supported ``model_type``.
    """
    settings = {key: value for key, value in config.items() if key not in NOT_PASSED_ON}
    return transformers.AutoConfig.for_model(settings.pop("model_type")).from_dict(settings)


def _set_generation(model: PreTrainedModel, folder: Path) -> None:
    """What ``from_pretrained`` does where it is given a folder."""
    with contextlib.suppress(OSError), without_marks(folder) as place:
        model.generation_config = transformers.GenerationConfig.from_pretrained(
            place, local_files_only=True
        )


def _tell_own_head(model: PreTrainedModel) -> None:
    """Where the checkpoint's head is not its embedding, the configuration must not say so.

    transformers keeps the two apart if a checkpoint holds both and they differ, whatever
    ``tie_word_embeddings`` says; a copy or an export made from the configuration would tie them.
    """
    config: Any = model.config
    head = model.get_output_embeddings()
    if head is None or not getattr(config, "tie_word_embeddings", False):
        return
    if head.weight is not model.get_input_embeddings().weight:
        # T5 and umT5 read the field for another purpose: whether the last hidden states are scaled
        scaled = FAMILIES[config.model_type].scaled_head
        config.tie_word_embeddings = getattr(config, "scale_decoder_outputs", scaled)


def check_start(model: PreTrainedModel) -> None:
    """Insist on the token that the decoder of an encoder-decoder begins with.

    Where only the generation config names it, the configuration gets it from there.

    Raises:
        ModelFileError: neither names it.
    """
    config: Any = model.config
    if not getattr(config, "is_encoder_decoder", False):
        return
    generation: Any = getattr(model, "generation_config", None)
    for name in ("decoder_start_token_id", "pad_token_id"):
        if getattr(config, name, None) is None:
            token = getattr(generation, name, None)
            if token is None:
                raise ModelFileError(
                    "config.json names no {name}, which the decoder needs; add it (of T5 it is 0).",
                    name=name,
                )
            setattr(config, name, token)


def _check_head(config: Mapping[str, Any], names: Collection[str]) -> None:
    """Refuse a decoder whose head is for something else than language, or is not there.

    Raises:
        ModelFileError: such a one.
    """
    model_type = str(config["model_type"])
    if FAMILIES[model_type].kind == "encoder":
        return
    architectures = config.get("architectures")
    architecture = (
        str(architectures[0]) if isinstance(architectures, list) and architectures else ""
    )
    heads = [n for n in names if n.startswith(("score.", "classifier.", "classification_head."))]
    heads += [n for n in names if n.startswith("qa_outputs.")]
    speaks = any(name.startswith(("lm_head.", "embed_out.")) for name in names)
    if heads and not speaks:
        raise ModelFileError(
            "This is a model for classes, rewards or answers ({what:list}) without a head for "
            "language; choose the language model that it was made from.",
            what=[shown(heads[0]), *([shown(architecture)] if architecture else [])],
        )
    tied = plain_config(config).tie_word_embeddings
    if not speaks and not tied and names:
        raise ModelFileError(
            "This is a bare model without its output head ({name}, no lm_head.weight), so that it "
            "has no perplexity and writes nothing; choose the one for causal language modeling.",
            name=shown(architecture or model_type),
        )


MARK = b"\xef\xbb\xbf"
"""A byte-order mark, as some editors put before UTF-8."""


@contextlib.contextmanager
def without_marks(folder: Path) -> Iterator[Path]:
    """The folder, or where its text files begin with byte-order marks a copy of them without.

    transformers reads these files strictly. The copy holds no weights and goes in the end.
    """
    endings = (".json", ".txt", ".jinja")
    texts = [path for path in folder.iterdir() if path.suffix in endings and path.is_file()]
    if not any(begins_with_mark(path) for path in texts):
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="prunescope-") as place:
        for path in folder.iterdir():
            if path.is_file() and path.suffix in (*endings, ".model", ".spm"):
                (Path(place) / path.name).write_bytes(path.read_bytes().removeprefix(MARK))
        yield Path(place)


def begins_with_mark(path: Path) -> bool:
    """True if a file is there and begins with UTF-8's byte-order mark."""
    if not path.is_file():
        return False
    with path.open("rb") as stream:
        return stream.read(len(MARK)) == MARK


def read_tokenizer(
    folder: Path, config: Mapping[str, Any], *, exact: bool = False
) -> PreTrainedTokenizerBase:
    """Read the tokenizer of a checked folder.

    Args:
        folder: holds its files.
        config: of the model beside it.
        exact: take tokenizer.json at its word; transformers rebuilds the tokenizers of some
            families (Qwen2) by its own rules, whatever the file says.

    Raises:
        ModelFileError: it cannot be read.
    """
    try:
        with quiet(), without_marks(folder) as place:
            if exact:
                return transformers.PreTrainedTokenizerFast.from_pretrained(
                    place, trust_remote_code=False, local_files_only=True
                )
            own = _sentencepiece(place, str(config["model_type"]))
            if own is not None:
                return own
            return transformers.AutoTokenizer.from_pretrained(
                place,
                config=plain_config(config),
                trust_remote_code=False,
                local_files_only=True,
            )
    except Exception as error:
        raise ModelFileError(
            "The tokenizer in {folder} cannot be read ({error}).",
            folder=shown(str(folder)),
            error=_first_line(error),
        ) from error


def _sentencepiece(folder: Path, model_type: str) -> PreTrainedTokenizerBase | None:
    """The tokenizer of a sentencepiece file that stands alone, with that library's own ids.

    Without a tokenizer_config.json transformers converts the file and loses how it treats spaces.
    """
    from sentencepiece import SentencePieceProcessor
    from transformers.tokenization_utils_sentencepiece import SentencePieceBackend

    path = folder / "tokenizer_config.json"
    if (folder / "tokenizer.json").is_file():
        return None
    if path.is_file() and '"SentencePieceBackend"' not in path.read_text(encoding="utf-8"):
        return None
    name = FAMILIES[model_type].sentencepiece
    if not name or not (folder / name).is_file():
        return None
    try:
        pieces = SentencePieceProcessor(str(folder / name))
    except (RuntimeError, OSError):  # another kind of file goes under this name too
        return None
    ids = {role: getattr(pieces, f"{role}_id")() for role in ("bos", "eos", "unk", "pad")}
    special = {f"{r}_token": pieces.id_to_piece(i) for r, i in ids.items() if i >= 0}
    backend: PreTrainedTokenizerBase = SentencePieceBackend(
        vocab_file=str(folder / name), special_tokens_pattern="none", **special
    )
    return backend


def _first_line(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    return shown(text.splitlines()[0], 160).rstrip(".")


def model_class(model_type: str, tensor_names: Collection[str], architectures: Any = None) -> Any:
    """The transformers class that reads a model type in full.

    Encoders are read with the head that the checkpoint has, for masked language or for the
    classification of sequences, and plain without either.

    Args:
        model_type: of a supported family.
        tensor_names: of the checkpoint.
        architectures: of its configuration, as they stand there.
    """
    family = FAMILIES[model_type]
    if family.kind == "encoder-decoder":
        return transformers.AutoModelForSeq2SeqLM
    if family.kind == "decoder":
        return transformers.AutoModelForCausalLM
    if any(name.startswith(family.head_tensors) for name in tensor_names):
        return transformers.AutoModelForMaskedLM
    names = architectures if isinstance(architectures, list) else []
    if any(str(name).endswith("ForSequenceClassification") for name in names):
        return transformers.AutoModelForSequenceClassification
    return transformers.AutoModel


def check_finite(model: torch.nn.Module) -> None:
    """Insist that every weight is a number.

    Raises:
        ModelFileError: names the first tensor with NaN or infinity.
    """
    for name, parameter in model.named_parameters():
        values = parameter.detach()
        # the sum is several times faster and not finite if any value is; overflow alone is no fault
        if torch.isfinite(values.sum()) or torch.isfinite(values).all():
            continue
        raise ModelFileError(
            "Tensor {name} holds values that are not finite (NaN or infinity); the file is "
            "damaged or its training failed.",
            name=shown(name, 120),
        )


def check_vocabulary(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> tuple[str, ...]:
    """Insist that every token of the tokenizer has a row in the embedding, added ones aside.

    Tokens that were added later, for padding or tools, come up in no ordinary text; where one
    does, ``ModelHandle.check_tokens`` says so.

    Returns:
        Warnings to show.

    Raises:
        ModelFileError: the tokenizer belongs to a larger vocabulary.
    """
    rows = model.get_input_embeddings().weight.shape[0]
    beyond = {token: name for name, token in tokenizer.get_vocab().items() if token >= rows}
    added = set(getattr(tokenizer, "added_tokens_decoder", {}))
    if beyond and added.issuperset(beyond):
        names = ", ".join(beyond[token] for token in sorted(beyond))
        return (
            Sentence(
                "{count} added tokens of the tokenizer have no row in the model's embedding "
                "({names}); a text must not hold them.",
                count=len(beyond),
                names=shown(names),
            ),
        )
    if beyond:
        largest = max(beyond)
        raise ModelFileError(
            "The tokenizer knows token {largest} but the model's embedding has {rows} rows; the "
            "two do not belong together.",
            largest=largest,
            rows=rows,
        )
    return ()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers from writing tables and progress bars to stderr."""
    logging = transformers.utils.logging
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
