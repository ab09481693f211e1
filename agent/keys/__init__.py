"""`gpupool keys`: makes, shows, backs up, restores and rotates keys; `parser` lists the verbs."""
