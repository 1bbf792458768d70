"""Synthetic data for tests and benchmarks."""
