"""`gpupool audit`: one file from which anybody derives an epoch's settlement again. `bundle` says what is in it."""
