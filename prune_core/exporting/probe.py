"""Measures one checkpoint in a process of its own: speed, and the memory that it takes.

Run as a file, not as a module: it imports torch and transformers and nothing of this project, so
that what it measures is what anybody gets. The parent is ``prune_core.exporting.speed``.

One JSON object comes in on standard input::

    {"folder", "auto", "model", "dtype", "device", "library_format", "threads",
     "tokens", "new_tokens"}

``auto`` is the name of the transformers class that loads, ``model`` of the one that comes out,
``tokens`` a prompt. Then for each line ``round`` one
JSON object goes out, ``{"prefill", "decode"}``, in tokens per second, and for ``memory`` one,
``{"loaded", "peak"}``, in bytes above the bare imports (None where the system does not say). The
first line out, after loading, is ``{"ready": true}``.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from pathlib import Path
from typing import Any


def resident(field: str) -> int | None:
    """Bytes of a field of ``/proc/self/status``; None elsewhere than on Linux.

    ``ru_maxrss`` is no use here: it is handed down from the process that started this one.
    """
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(f"{field}:"):
                return 1024 * int(line.split()[1])
    except OSError:
        pass
    return None


def main() -> None:
    """Serve one checkpoint until standard input ends."""
    request = json.loads(sys.stdin.readline())
    import torch
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(request["threads"])
    torch.ones(64, 64) @ torch.ones(64, 64)  # the kernels' own buffers belong to the imports
    loader = getattr(transformers, request["auto"])
    # imports the class's modeling file, which is no part of a model
    getattr(transformers, request["model"])
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here on
    if request["library_format"]:
        import compressed_tensors  # noqa: F401
    before = resident("VmRSS")
    device = torch.device(request["device"])
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    dtype = getattr(torch, request["dtype"])
    if request["library_format"]:
        model = unpacked(transformers, loader, request, dtype)
    else:
        model = loader.from_pretrained(request["folder"], dtype=dtype, local_files_only=True)
    model.to(device).eval()
    after = resident("VmRSS")
    tokens = torch.tensor([request["tokens"]], device=device)

    def memory() -> dict[str, int | None]:
        if device.type == "cuda":
            peak = torch.cuda.max_memory_allocated(device)
            size = sum(p.numel() * p.element_size() for p in model.parameters())
            return {"loaded": size, "peak": peak}
        highest = resident("VmHWM")
        if before is None or after is None or highest is None:
            return {"loaded": None, "peak": None}
        return {"loaded": after - before, "peak": highest - before}

    answer({"ready": True})
    with torch.inference_mode():
        for line in sys.stdin:
            answer(memory() if line.strip() == "memory" else turn(torch, model, tokens, request))


def unpacked(transformers: Any, loader: Any, request: dict[str, Any], dtype: Any) -> Any:
    """A compressed checkpoint, as its model card says to load it."""
    import compressed_tensors as library

    names = {"sparse-bitmask": "BitmaskConfig", "sparse-24-bitmask": "Sparse24BitMaskConfig"}
    config = getattr(library, names[request["library_format"]])()
    (file,) = Path(request["folder"]).glob("*.compressed.safetensors")
    model = loader.from_config(
        transformers.AutoConfig.from_pretrained(request["folder"]), dtype=dtype
    )
    weights = model.state_dict()
    for name, value in library.load_compressed(file, config):
        weights[name].copy_(value)
    model.tie_weights()
    return model


def answer(content: dict[str, Any]) -> None:
    """One line to the parent."""
    sys.stdout.write(json.dumps(content) + "\n")
    sys.stdout.flush()


def turn(torch: Any, model: Any, tokens: Any, request: dict[str, Any]) -> dict[str, Any]:
    """One prefill and one greedy decode; an encoder has only the former."""
    wait = torch.cuda.synchronize if tokens.is_cuda else (lambda: None)
    config = model.config
    writes = model.can_generate()
    if not writes:
        start = time.perf_counter()
        model(input_ids=tokens)
        wait()
        return {"prefill": tokens.shape[1] / (time.perf_counter() - start), "decode": None}
    pair = bool(getattr(config, "is_encoder_decoder", False))
    arguments = {"decoder_input_ids": tokens[:, :1]} if pair else {"logits_to_keep": 1}
    start = time.perf_counter()
    output = model(input_ids=tokens, use_cache=True, **arguments)
    wait()
    first = time.perf_counter()
    for _ in range(request["new_tokens"]):
        step = output.logits[:, -1:].argmax(-1)
        following: dict[str, Any] = {"input_ids": step}
        if pair:
            read = (output.encoder_last_hidden_state,)
            following = {"encoder_outputs": read, "decoder_input_ids": step}
        output = model(**following, past_key_values=output.past_key_values, use_cache=True)
    wait()
    end = time.perf_counter()
    return {
        "prefill": tokens.shape[1] / (first - start),
        "decode": request["new_tokens"] / (end - first),
    }


if __name__ == "__main__":
    main()
