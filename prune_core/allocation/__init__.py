"""Allocation: how the total sparsity is shared over the layers."""

from prune_core.allocation.global_ranking import global_counts as global_counts
from prune_core.allocation.uniform import uniform as uniform
