"""`gpupool pool`: what owners, participants and operators do with a pool's contracts.

`parser` says which verbs there are; each verb is a function of the module of its concern, which turns options into
an `Operation` (`sending`) that is sent through the wallet, or rehearsed (`--dry-run`).
"""
