"""Read weights and tokenizer with transformers, and check what came out."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import transformers

from prune_core.errors import ModelFileError
from prune_core.models.sources import shown

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def read_model(
    folder: Path, config: dict[str, Any], names: Collection[str], dtype: str
) -> tuple[PreTrainedModel, list[str]]:
    """Read a checked folder with transformers.

    Args:
        folder: holds config and safetensors.
        config: its configuration.
        names: of its tensors.
        dtype: to load in.

    Returns:
        The model, and the names of tensors it has no place for.

    Raises:
        ModelFileError: tensors missing or misshapen, or transformers cannot read it.
    """
    extra: dict[str, Any] = {}
    chosen = model_class(str(config["model_type"]), names, config.get("architectures"))
    if chosen is transformers.AutoModel and not any(".pooler." in f".{name}" for name in names):
        extra["add_pooling_layer"] = False
    if config["model_type"] == "distilbert":
        extra.pop("add_pooling_layer", None)  # it never has one
    try:
        with quiet():
            model, info = chosen.from_pretrained(
                folder,
                dtype=getattr(torch, dtype),
                trust_remote_code=False,
                use_safetensors=True,
                local_files_only=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # collected and refused below, with their shapes
                **extra,
            )
    except Exception as error:
        raise ModelFileError(
            f"The model in {shown(str(folder))} cannot be read ({_first_line(error)})."
        ) from error
    mismatched = sorted(
        f"{name} {tuple(found)} instead of {tuple(wanted)}"
        for name, found, wanted in info["mismatched_keys"]
    )
    if mismatched:
        raise ModelFileError(
            f"{len(mismatched)} tensors have the wrong shape: {shown('; '.join(mismatched), 300)}."
        )
    missing = sorted(info["missing_keys"])
    if missing:
        raise ModelFileError(
            f"{len(missing)} tensors of the model are missing from its files: "
            f"{shown(', '.join(missing), 300)}."
        )
    return model, sorted(info["unexpected_keys"])


def read_tokenizer(folder: Path, *, exact: bool = False) -> PreTrainedTokenizerBase:
    """Read the tokenizer of a checked folder.

    Args:
        folder: holds the tokenizer's files.
        exact: take tokenizer.json at its word; transformers rebuilds the tokenizers of some
            families (Qwen2) by its own rules, whatever the file says.

    Raises:
        ModelFileError: it cannot be read.
    """
    try:
        with quiet():
            chosen = transformers.PreTrainedTokenizerFast if exact else transformers.AutoTokenizer
            return chosen.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except Exception as error:
        raise ModelFileError(
            f"The tokenizer in {shown(str(folder))} cannot be read ({_first_line(error)})."
        ) from error


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
    from transformers.models.auto import modeling_auto

    # the order matters: BERT is also listed as a causal model, BART also as a masked one
    if model_type in modeling_auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES:
        return transformers.AutoModelForSeq2SeqLM
    if model_type not in modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES:
        return transformers.AutoModelForCausalLM
    heads = ("cls.predictions.", "lm_head.", "vocab_transform.", "vocab_projector.")
    if any(name.startswith(heads) for name in tensor_names):
        return transformers.AutoModelForMaskedLM
    named = architectures if isinstance(architectures, list) else []
    if any(str(name).endswith("ForSequenceClassification") for name in named):
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
            f"Tensor {shown(name, 120)} holds values that are not finite (NaN or infinity); "
            "the file is damaged or its training failed."
        )


def check_vocabulary(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Insist that every token of the tokenizer has a row in the embedding.

    Raises:
        ModelFileError: the tokenizer belongs to a larger vocabulary.
    """
    rows = model.get_input_embeddings().weight.shape[0]
    largest = max(tokenizer.get_vocab().values(), default=-1)
    if largest >= rows:
        raise ModelFileError(
            f"The tokenizer knows token {largest} but the model's embedding has {rows} rows; "
            "the two do not belong together."
        )


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
