"""Patterns: which weights of a layer compete with each other, and how many of them go."""

from prune_core.patterns.base import Pattern as Pattern
from prune_core.patterns.base import num_pruned as num_pruned
from prune_core.patterns.blocks import Blocks as Blocks
from prune_core.patterns.nm import NM as NM
from prune_core.patterns.parse import parse_pattern as parse_pattern
from prune_core.patterns.unstructured import PerLayer as PerLayer
from prune_core.patterns.unstructured import PerRow as PerRow
