"""`gpupool db`: examines, exports and imports the journal; `parser` lists the verbs."""
