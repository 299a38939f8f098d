"""Patterns: which weights of a layer compete with each other, and how many of them go.

One for each file; one that is added here is in every list by itself.
"""

from prune_core.patterns.base import PATTERNS as PATTERNS
from prune_core.patterns.base import Pattern as Pattern
from prune_core.patterns.base import example_patterns as example_patterns
from prune_core.patterns.base import num_pruned as num_pruned
from prune_core.patterns.base import parse_pattern as parse_pattern
from prune_core.patterns.base import pattern_text as pattern_text
from prune_core.patterns.blocks import Blocks as Blocks
from prune_core.patterns.nm import NM as NM
from prune_core.patterns.unstructured import PerLayer as PerLayer
from prune_core.patterns.unstructured import PerRow as PerRow
