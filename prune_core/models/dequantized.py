"""Weights as floats: numbers that are stored beside scales, multiplied out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prune_core.models.stored import Stored, unknown

if TYPE_CHECKING:
    from torch import Tensor


def read_state(stored: Stored, dtype: Any) -> dict[str, Tensor]:
    """Every tensor of a folder under the model's name, stored numbers multiplied out.

    Args:
        stored: see :func:`understand`.
        dtype: of the weights that are multiplied out; the products are formed in float32.

    Raises:
        ModelFileError: bitsandbytes' numbers lie in another order than rows.
    """
    from safetensors import safe_open

    place: dict[str, Any] = {}
    for path in stored.files:
        with safe_open(path, framework="pt") as file:
            place |= dict.fromkeys(file.keys(), path)
    opened = {path: safe_open(path, framework="pt") for path in stored.files}

    def tensor(name: str) -> Tensor:
        value: Tensor = opened[place[name]].get_tensor(name)
        return value

    state: dict[str, Tensor] = {}
    for name, shown_name in stored.names.items():
        rule = stored.scaled.get(name)
        if rule is None:
            state[shown_name] = tensor(name)
            continue
        if rule.layout is not None and int(tensor(rule.layout).flatten()[0]) != 0:
            raise unknown(rule.layout, name)
        zero = tensor(rule.zero) if rule.zero is not None else None
        state[shown_name] = product(
            tensor(name), tensor(rule.scale), rule.block, zero=zero, most=rule.most
        ).to(dtype)
    return state


def product(
    numbers: Tensor,
    scale: Tensor,
    block: tuple[int, int],
    *,
    zero: Tensor | None = None,
    most: int = 1,
) -> Tensor:
    """Weights from stored numbers: ``(numbers - zero) * scale / most``, in float32.

    Args:
        numbers: (out, in), float8 or whole.
        scale: one number, (out,), or (rows / block, columns / block) rounded up.
        block: rows and columns that share one scale.
        zero: of the scale's shape, or None for 0.
        most: 1, or the stored number that stands for the scale itself.

    Returns:
        (out, in) float32.
    """

    def spread(values: Tensor) -> Tensor:
        values = values.float()
        if values.numel() == 1:
            return values.reshape(())
        rows, columns = block
        if values.dim() == 1:
            values = values[:, None]
        for axis, size in ((0, rows), (1, columns)):
            if values.shape[axis] > 1 and size > 1:
                values = values.repeat_interleave(size, axis)
        return values[: numbers.shape[0], : numbers.shape[1]]

    weights = numbers.float()
    if zero is not None:
        weights = weights - spread(zero)
    weights = weights * spread(scale)
    return weights / most if most != 1 else weights
