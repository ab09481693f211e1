"""Attestation: is this quote authentic (`verify`), is it allowed (`policy`), and whom does it bind (`evidence`).

Read `verify` first. Pure functions, no clock, no I/O; only `providers` touch files and devices.
"""
