"""`gpupool doctor`: why this node does not earn, first cause first; `diagnosis` holds the table of its checks."""
