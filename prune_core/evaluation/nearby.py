"""Losses of many answers that all lie near one known answer, without most of the output head.

More than half of a large vocabulary shares a thousandth of the probability: the logits of those
rare words matter only through their sum in the softmax's normalizer. Around a known answer that sum
is expanded in the change d of the hidden state to second order: with p_i the known probabilities
of the rare words, P their sum, m and S the mean and covariance of their rows of the head,

    sum_i p_i exp(w_i . d)  =  P exp(m . d + d' S d / 2)  +  third order.

P and m are each position's own; S is shared by a window's positions. The second-order term itself
says how far the expansion holds: where it is more than :data:`LIMIT` of the normalizer, that
position gets the whole head. What remains is about 1e-6 nats, float32's own rounding.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from prune_core.evaluation.scoring import SLICE, TILE, tiled_losses, widest

RARE = 1e-3
"""Probability of all rare words together, the mean over positions."""

LIMIT = 3e-5
"""The second-order term's largest share of the normalizer: about so many nats of loss."""

WORTH = 0.75
"""Share of the vocabulary up to which leaving out the rest saves time."""

AT_ONCE = 4096
"""Rare words whose rows are copied at one time."""


class Nearby:
    """Losses near one known answer.

    Args:
        hidden: (positions, hidden) float32, what the head was given.
        head: linear, (vocab, hidden).
        targets: (positions,) int64, the tokens to predict.
        losses: (positions,) nats, of the known answer.
    """

    @torch.inference_mode()
    def __init__(self, hidden: Tensor, head: nn.Module, targets: Tensor, losses: Tensor) -> None:
        self.head, self.hidden, self.targets = head, hidden, targets
        self.losses = losses.to(hidden.device)
        layer: Any = head
        self._weight: Tensor = layer.weight
        self._bias: Tensor | None = getattr(head, "bias", None)
        self.normalizer = self._target_logits(hidden, targets) + self.losses
        wide = widest(hidden.device)
        mass = torch.zeros(len(self._weight), dtype=wide, device=hidden.device)
        for rows in hidden.split(SLICE):
            logits = F.linear(rows, self._weight, self._bias)
            mass += logits.float().softmax(-1).sum(0, dtype=wide)
        order = mass.argsort(descending=True)
        rest = 1 - mass[order].cumsum(0) / len(hidden)
        count = (int((rest > RARE).sum()) // TILE + 1) * TILE
        self.common: Tensor | None = None
        if count <= WORTH * len(order):
            self.common = order[:count].sort().values
            self._expand(order[count:].sort().values)

    def _target_logits(self, hidden: Tensor, targets: Tensor) -> Tensor:
        own = (hidden * self._weight[targets]).sum(-1)
        return own if self._bias is None else own + self._bias[targets]

    def _expand(self, rare: Tensor) -> None:
        """Sum, mean and covariance of the rare words' rows under the known probabilities."""
        sums = self.normalizer.new_zeros(len(self.hidden))
        means = torch.zeros_like(self.hidden)
        second = self.hidden.new_zeros(self.hidden.shape[1], self.hidden.shape[1])
        for words in rare.split(AT_ONCE):
            rows = self._weight[words]
            bias = None if self._bias is None else self._bias[words]
            shares = (F.linear(self.hidden, rows, bias) - self.normalizer[:, None]).exp_()
            sums += shares.sum(-1)
            means += shares @ rows
            second += rows.t() @ (rows * shares.sum(0)[:, None])
        self.sums, self.means = sums, means / sums[:, None]
        second -= self.means.t() @ means
        self.covariance = second / sums.sum()

    @torch.inference_mode()
    def losses_of(self, hidden: Tensor) -> Tensor:
        """Losses of answers to the same positions.

        Args:
            hidden: (answers, positions, hidden) float32.

        Returns:
            (answers, positions) nats.
        """
        count = len(hidden)
        rows, targets = hidden.flatten(0, 1), self.targets.repeat(count)
        near = self.losses.repeat(count)
        if self.common is None:
            return self._exact_losses(rows, targets, near).view(count, -1)
        change = hidden - self.hidden
        first = (change * self.means).sum(-1)
        second = ((change.flatten(0, 1) @ self.covariance).view_as(change) * change).sum(-1) / 2
        shift = self._target_logits(rows, targets) + near
        level = self.normalizer + self.sums.log() - shift.view(count, -1)
        tail = (first + second + level).exp().to(widest(hidden.device)).flatten()
        sums = self._common_sums(rows, shift[:, None]) + tail
        losses = (sums.log() + near).float()
        far = ~(second.flatten() * tail <= LIMIT * sums) | ~torch.isfinite(losses)
        if bool(far.any()):
            losses[far] = self._exact_losses(rows[far], targets[far], near[far])
        return losses.view(count, -1)

    def _exact_losses(self, rows: Tensor, targets: Tensor, near: Tensor) -> Tensor:
        """(rows,) losses with every word's logit."""
        losses = tiled_losses(rows, self.head, targets, near)
        if losses is not None:
            return losses
        parts = zip(rows.split(SLICE), targets.split(SLICE), strict=True)
        return torch.cat(
            [F.cross_entropy(self.head(part).float(), target, reduction="none")
             for part, target in parts]
        )  # fmt: skip

    def _common_sums(self, rows: Tensor, shift: Tensor) -> Tensor:
        """(rows,) in the widest float, exp(logit - shift) summed over the common words."""
        assert self.common is not None
        sums = torch.zeros(len(rows), dtype=widest(rows.device), device=rows.device)
        size = TILE if rows.device.type == "cpu" else len(self.common)
        logits = rows.new_empty(len(rows), size)
        weight = rows.new_empty(size, rows.shape[-1])
        for words in self.common.split(size):  # a whole number of tiles
            torch.index_select(self._weight, 0, words, out=weight)
            torch.mm(rows, weight.t(), out=logits)
            if self._bias is not None:
                logits += self._bias[words]
            sums += logits.sub_(shift).exp_().sum(-1)
        return sums
