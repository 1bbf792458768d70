"""The benchmarks; `make bench-<name>` prints a table and writes `benchmarks/results/<name>.json`."""
