"""Many recipes measured: grids, the journal that keeps what was found, frontier and promises."""
