"""The forms that a recipe is written in: one row for each field, one reader and one writer of each.

A recipe is JSON, a session's values and the query of a link, options of the command line, keys of a
grid, and words for people. All of them loop over :data:`FORMS`: a new field of a recipe needs a row
here and can then be said everywhere. No torch and no Streamlit here.

Texts of lists have one grammar in all forms: ``0:3,5:1`` for parts of blocks, ``3,5`` for blocks,
``role:mlp.down=0.3,block:2=0.5`` for numbers by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prune_core.criteria import CRITERIA
from prune_core.patterns import PATTERNS
from prune_core.recipes.calibration import (
    CALIBRATION_MODES,
    MAX_CALIBRATION_WINDOWS,
)
from prune_core.recipes.choices import RECONSTRUCTIONS
from prune_core.recipes.form import Form
from prune_core.recipes.notation import (
    MAX_CUT,
    MAX_LINK_SEED,
    MAX_SEED,
    number_between,
    one_of,
    read_flag,
    read_indices,
    read_link_pattern,
    read_name,
    read_numbers,
    read_overrides,
    read_pairs,
    read_pattern,
    read_preset,
    read_text_name,
    whole_between,
    write_indices,
    write_numbers,
    write_pairs,
    write_text_name,
)
from prune_core.recipes.parts import NEURON_METHODS, NEURON_SCOPES
from prune_core.recipes.recipe import ALLOCATIONS

Values = Mapping[str, Any]
"""Values of a recipe by field, as :attr:`Form.field` names it."""


GROUPS = ("weights", "structure", "calibration")


# ---- readers and writers ---------------------------------------------------------------------


# ---- the rows --------------------------------------------------------------------------------


_WHOLE_PARTS = "blocks, such as 3,5"

FORMS: tuple[Form, ...] = (
    Form(
        "criterion",
        "weights",
        "criterion",
        read_name,
        option="--criterion",
        metavar="NAME",
        help="scores the weights; the lowest go: " + ", ".join(sorted(CRITERIA)),
        grid="criteria",
        from_link=one_of(CRITERIA),
    ),
    Form(
        "criterion_args",
        "weights",
        "arguments",
        read_numbers,
        write_numbers,
        option="--criterion-arg",
        metavar="NAME=NUMBER",
        help="setting of the criterion, such as power=0.5; may be repeated",
        many=True,
        grid="criterion_args",
        as_text=True,
    ),
    Form(
        "criterion_args.value",  # of a threshold: a session keeps it while another one is chosen
        "weights",
        "cut",
        number_between(0.0, MAX_CUT),
    ),
    Form(
        "pattern",
        "weights",
        "pattern",
        read_pattern,
        option="--pattern",
        metavar="NAME",
        help=f"{', '.join(entry.spelling for entry in PATTERNS.values())}; default: own, "
        "the criterion's "
        f"({', '.join(name for name in CRITERIA if CRITERIA[name].pattern == 'per-row')}: per-row; "
        "others: per-layer)",
        grid="patterns",
        from_link=read_link_pattern,
    ),
    Form(
        "allocation",
        "weights",
        "allocation",
        one_of(ALLOCATIONS),
        option="--allocation",
        metavar="NAME",
        help="shares the sparsity over the layers: " + ", ".join(ALLOCATIONS),
        grid="allocations",
    ),
    Form(
        "allocation_args",
        "weights",
        "shares",
        read_numbers,
        write_numbers,
        option="--allocation-arg",
        metavar="NAME=NUMBER",
        help="setting of the allocation, such as m=7 (owl), attn.q=0.5 (per-role) or 3=0.5 "
        "(manual, a block); may be repeated",
        many=True,
        grid="allocation_args",
        as_text=True,
    ),
    Form(
        "sparsity",
        "weights",
        "sparsity",
        number_between(0.0, 1.0),
        option="--sparsity",
        metavar="SHARE",
        help="0 to 1; N:M brings its own",
        grid="sparsities",
        bound=True,
    ),
    Form(
        "overrides",
        "weights",
        "overrides",
        read_overrides,
        write_numbers,
        option="--override",
        metavar="PART=SHARE",
        help="sparsity of a part: role:mlp.down=0.3, block:2=0.5 or layer:NAME=0.1; may be "
        "repeated",
        many=True,
        grid="overrides",
        as_text=True,
    ),
    Form(
        "reconstruction",
        "weights",
        "reconstruction",
        one_of(RECONSTRUCTIONS),
        option="--reconstruction",
        metavar="NAME",
        help="repairs the weights that stay: " + " or ".join(RECONSTRUCTIONS),
        grid="reconstructions",
    ),
    Form(
        "drop_heads",
        "structure",
        "heads",
        read_pairs,
        write_pairs,
        option="--drop-heads",
        metavar="B:H,…",
        help="query heads to remove",
        many=True,
        grid="heads",
        as_text=True,
    ),
    Form(
        "drop_cross_heads",
        "structure",
        "cross_heads",
        read_pairs,
        write_pairs,
        option="--drop-cross-heads",
        metavar="B:H,…",
        help="those of cross-attention",
        many=True,
        grid="drop_cross_heads",
        as_text=True,
    ),
    Form(
        "drop_neurons",
        "structure",
        "neurons",
        read_pairs,
        write_pairs,
        option="--drop-neurons",
        metavar="FRACTION|B:N,…",
        help="a share of the MLP neurons, 0 to 1, least important first; or single ones; or both",
        many=True,
        grid="drop_neurons",
        as_text=True,
    ),
    Form(
        "neurons.fraction",
        "structure",
        "neuron_share",
        number_between(0.0, 1.0),
        option="--drop-neurons",
        grid="neurons",
    ),
    Form(
        "neurons.method",
        "structure",
        "neuron_method",
        one_of(NEURON_METHODS),
        option="--neuron-method",
        metavar="NAME",
        help=f"{', '.join(NEURON_METHODS)}; of a share",
        grid="neuron_method",
    ),
    Form(
        "neurons.scope",
        "structure",
        "neuron_scope",
        one_of(NEURON_SCOPES),
        option="--neuron-scope",
        metavar="NAME",
        help="block (each loses the share) or global",
        grid="neuron_scope",
    ),
    Form(
        "compensate",
        "structure",
        "compensate",
        read_flag,
        option="--compensate",
        help="add what dropped neurons gave on average to the bias of their layer",
        grid="compensate",
    ),
    Form(
        "drop_blocks",
        "structure",
        "drop_blocks",
        read_indices,
        write_indices,
        option="--drop-blocks",
        metavar="B,…",
        help="blocks to remove",
        many=True,
        grid="blocks",
        as_text=True,
    ),
    Form(
        "drop_attention",
        "structure",
        "drop_attention",
        read_indices,
        write_indices,
        option="--drop-attention",
        metavar="B,…",
        help="blocks that lose only their attention",
        many=True,
        grid="drop_attention",
        as_text=True,
    ),
    Form(
        "drop_mlp",
        "structure",
        "drop_mlp",
        read_indices,
        write_indices,
        option="--drop-mlp",
        metavar="B,…",
        help="blocks that lose only their MLP",
        many=True,
        grid="drop_mlp",
        as_text=True,
    ),
    Form(
        "calibration.text",
        "calibration",
        "cal_text",
        read_text_name,
        write_text_name,
        option="--calibration",
        metavar="FILE",
        help="text for what needs one: a preset or a file; default: andersen, or grimm where "
        "andersen is --text",
        grid="calibration",
        as_text=True,
        by_itself=None,
        from_link=read_preset,
    ),
    Form(
        "calibration.windows",
        "calibration",
        "cal_windows",
        whole_between(1, MAX_CALIBRATION_WINDOWS),
        option="--calibration-windows",
        metavar="N",
        help=f"windows of --calibration, 1 to {MAX_CALIBRATION_WINDOWS}; default: 32",
        grid="calibration",
    ),
    Form(
        "calibration.seq_len",
        "calibration",
        "cal_seq_len",
        whole_between(0, 2**20),
        option="--calibration-seq-len",
        metavar="TOKENS",
        help="tokens in a window of --calibration, at most the model's context; default: 512, or "
        "the context where that is shorter",
        grid="calibration",
        by_itself=0,
    ),
    Form(
        "calibration.skip",
        "calibration",
        "cal_skip",
        whole_between(0, 2**40),
        option="--calibration-skip",
        metavar="TOKENS",
        help="tokens of --calibration left out at its start; default: 0",
        grid="calibration",
    ),
    Form(
        "calibration.seed",
        "calibration",
        "cal_seed",
        whole_between(0, MAX_SEED, optional=True),
        option="--calibration-seed",
        metavar="N",
        help="draw the windows of --calibration at random; the same number draws the same",
        grid="calibration",
        as_text=True,
        from_link=whole_between(0, MAX_LINK_SEED, optional=True),
    ),
    Form(
        "calibration.mode",
        "calibration",
        "cal_mode",
        one_of(CALIBRATION_MODES),
        option="--calibration-mode",
        metavar="NAME",
        help="auto, dense or sequential: one block at a time",
        grid="calibration",
    ),
)
"""One row for each field; the order is that of the options and of what people read."""

BY_FIELD: Mapping[str, Form] = {form.field: form for form in FORMS}
BY_KEY: Mapping[str, Form] = {form.key: form for form in FORMS}


def forms_of(*groups: str) -> list[Form]:
    """Rows of some groups."""
    return [form for form in FORMS if form.group in groups]


# ---- between recipes and values --------------------------------------------------------------


# ---- the query of a link ---------------------------------------------------------------------


# ---- options of the command line -------------------------------------------------------------
