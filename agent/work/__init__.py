"""Own work, explained: from a record back to the raw readings that it was made of."""
