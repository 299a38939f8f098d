"""Pruning criteria. To add one: a file here, its import below, a row in tests/criteria."""

from prune_core.criteria import fisher as fisher
from prune_core.criteria import magnitude as magnitude
from prune_core.criteria import random as random
from prune_core.criteria import ria as ria
from prune_core.criteria import sparsegpt as sparsegpt
from prune_core.criteria import taylor as taylor
from prune_core.criteria import threshold as threshold
from prune_core.criteria import wanda as wanda
from prune_core.criteria.base import CRITERIA as CRITERIA
from prune_core.criteria.base import Criterion as Criterion
from prune_core.criteria.base import LayerStats as LayerStats
