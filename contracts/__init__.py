"""TON side: the contracts' sources and artifacts, their layout, the chain client, the embedded chain."""
