"""A live session without a laboratory: a simulated subject that ships with the package, played as real streams."""
