"""`gpupool score`: what other rules would have made of a past epoch."""
