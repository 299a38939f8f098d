"""What every page stands in: boot, choosers, loading, gauge."""
