"""`gpupool attest`: quotes, collateral, policies and GPUs from the command line; `parser` lists the verbs."""
