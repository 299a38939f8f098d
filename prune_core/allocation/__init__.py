"""Allocation: how the total sparsity is shared over the layers.

One for each file; one that is added here is in every list by itself.
"""

from prune_core.allocation.base import ALLOCATIONS as ALLOCATIONS
from prune_core.allocation.base import SCORED as SCORED
from prune_core.allocation.base import AllocationRequest as AllocationRequest
from prune_core.allocation.base import Cuts as Cuts
from prune_core.allocation.base import Part as Part
from prune_core.allocation.by_part import by_hand as by_hand
from prune_core.allocation.by_part import by_role as by_role
from prune_core.allocation.erk import erk as erk
from prune_core.allocation.global_ranking import global_counts as global_counts
from prune_core.allocation.owl import owl as owl
from prune_core.allocation.sensitivity import least_loss as least_loss
from prune_core.allocation.shares import clipped as clipped
from prune_core.allocation.shares import cuts_of as cuts_of
from prune_core.allocation.shares import exact_cuts as exact_cuts
