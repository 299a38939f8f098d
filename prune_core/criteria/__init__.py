"""Pruning criteria, a file for each; one that is added here is in every list by itself."""

from prune_core.criteria.base import CRITERIA as CRITERIA
from prune_core.criteria.base import Criterion as Criterion
from prune_core.criteria.base import LayerStats as LayerStats
