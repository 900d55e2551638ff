"""Whether the live path gives what an offline analysis of the same recording gives."""
