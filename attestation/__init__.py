"""Attestation: is this quote authentic (`verify`), is it allowed (`policy`), and whom does it bind (`evidence`).

Read `verify` first, then `appraisal` and `evidence`. What gives a verdict is pure: no clock, no I/O. Files, devices
and the network are touched by `providers`, `pcs`, `collateral_store` and `collateral_source` alone.
"""
