"""The status page: one page about this node, for whoever owns it."""
