"""One live session on disk: what came, as it came, and what was made of it."""
