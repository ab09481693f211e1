"""What this node earned, epoch by epoch, and why it was not more."""
