"""Losses near a known answer: the rare words' expansion against every word's logit in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from prune_core.evaluation import nearby
from prune_core.evaluation.nearby import Nearby

POSITIONS, HIDDEN, VOCAB = 48, 32, 4096


@pytest.fixture(params=[False, True], ids=["plain", "bias"])
def head(request: pytest.FixtureRequest) -> nn.Linear:
    """Words that lie along one direction, so that most of them are rare everywhere."""
    generator = torch.Generator().manual_seed(1)
    layer = nn.Linear(HIDDEN, VOCAB, bias=request.param)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(VOCAB, HIDDEN, generator=generator))
        layer.weight[:, 0] -= torch.linspace(0, 6, VOCAB)
    return layer.requires_grad_(False)


@pytest.fixture
def hidden() -> Tensor:
    """(positions, hidden), with that direction strong."""
    values = torch.randn(POSITIONS, HIDDEN, generator=torch.Generator().manual_seed(2))
    values[:, 0] = 3
    return values


@pytest.fixture
def targets() -> Tensor:
    return torch.randint(0, 500, (POSITIONS,), generator=torch.Generator().manual_seed(3))


def exact(hidden: Tensor, head: nn.Linear, targets: Tensor) -> Tensor:
    bias = None if head.bias is None else head.bias.double()
    logits = F.linear(hidden.double(), head.weight.double(), bias)
    count = hidden.shape[:-1].numel() // len(targets)
    return F.cross_entropy(logits.flatten(0, -2), targets.repeat(count), reduction="none")


def known(hidden: Tensor, head: nn.Linear, targets: Tensor) -> Nearby:
    return Nearby(hidden, head, targets, exact(hidden, head, targets).float())


def moved(hidden: Tensor, size: float) -> Tensor:
    """Three answers at about ``size`` from the known one."""
    generator = torch.Generator().manual_seed(4)
    return hidden + size * torch.randn(3, *hidden.shape, generator=generator)


@pytest.mark.parametrize("size", [0.0, 0.01, 0.1, 0.5, 3.0])
def test_losses_are_those_of_the_whole_head(
    head: nn.Linear, hidden: Tensor, targets: Tensor, size: float
) -> None:
    near, answers = known(hidden, head, targets), moved(hidden, size)
    assert near.common is not None and len(near.common) <= nearby.WORTH * VOCAB
    error = near.losses_of(answers).flatten().double() - exact(answers, head, targets)
    assert error.mean().abs() < 2e-6
    assert error.abs().max() < 3 * nearby.LIMIT


def errors(near: Nearby, answers: Tensor, wanted: Tensor) -> Tensor:
    return near.losses_of(answers).flatten().double() - wanted


def test_far_positions_get_the_whole_head(
    head: nn.Linear, hidden: Tensor, targets: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    near, answers = known(hidden, head, targets), moved(hidden, 0.5)
    wanted = exact(answers, head, targets)
    careful = errors(near, answers, wanted).abs().max()
    monkeypatch.setattr(nearby, "LIMIT", float("inf"))
    trusting = errors(near, answers, wanted).abs().max()
    assert trusting > 20 * careful


def test_second_order_is_needed_and_there(
    head: nn.Linear, hidden: Tensor, targets: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    near, answers = known(hidden, head, targets), moved(hidden, 0.05)
    wanted = exact(answers, head, targets)
    monkeypatch.setattr(nearby, "LIMIT", float("inf"))
    second = errors(near, answers, wanted).mean().abs()
    near.covariance = torch.zeros_like(near.covariance)
    first = errors(near, answers, wanted).mean().abs()
    assert second < first / 5


def test_an_even_distribution_uses_every_word(hidden: Tensor, targets: Tensor) -> None:
    head = nn.Linear(HIDDEN, VOCAB, bias=False).requires_grad_(False)
    near, answers = known(hidden, head, targets), moved(hidden, 0.1)
    assert near.common is None
    torch.testing.assert_close(
        near.losses_of(answers).flatten().double(), exact(answers, head, targets),
        atol=1e-5, rtol=0,
    )  # fmt: skip


def test_absurd_answers_are_measured_too(head: nn.Linear, hidden: Tensor, targets: Tensor) -> None:
    near, answers = known(hidden, head, targets), hidden[None] * -50
    torch.testing.assert_close(
        near.losses_of(answers).flatten().double(), exact(answers, head, targets),
        atol=1e-2, rtol=1e-5,
    )  # fmt: skip
