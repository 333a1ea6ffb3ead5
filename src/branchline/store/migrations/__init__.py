"""Schema changes, in order: each expands first and contracts in a later version."""
