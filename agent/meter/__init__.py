"""What this host worked: sources are read, counters become deltas, deltas become closed work windows."""
