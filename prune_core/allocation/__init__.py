"""Allocation: how the total sparsity is shared over the layers."""

from prune_core.allocation.global_ranking import global_counts as global_counts
from prune_core.allocation.sensitivity import least_loss as least_loss
from prune_core.allocation.shares import Part as Part
from prune_core.allocation.shares import by_hand as by_hand
from prune_core.allocation.shares import by_role as by_role
from prune_core.allocation.shares import clipped as clipped
from prune_core.allocation.shares import erk as erk
from prune_core.allocation.shares import exact_cuts as exact_cuts
from prune_core.allocation.shares import owl as owl
