"""The agent's metrics: `catalogue` says what there is, `registry` holds it, `following` keeps it up to date."""
