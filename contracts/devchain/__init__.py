"""An embedded TON chain: TON's own TVM emulator behind a liteserver, in one process, with its state on disk.

Unmodified liteserver clients connect to it, so the code that runs on the public networks runs here.
Read `ledger` first (accounts and messages), then `node` (blocks, history), then `liteserver`.
It has no validators and no security: whoever runs it is its only authority.
"""
