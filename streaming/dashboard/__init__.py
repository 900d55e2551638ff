"""The page beside a live session: what is published to it, how it is served, and who may see it."""
