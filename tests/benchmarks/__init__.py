"""Benchmarks: run by hand, print what they measured, assert nothing."""
