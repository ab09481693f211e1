"""A whole pool on one machine: what an agent meets in the world, stood in for by small processes."""
