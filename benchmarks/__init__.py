"""Measurements, each with a named reference in the same run. `make bench` runs all and prints JSON lines."""
