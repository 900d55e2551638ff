"""A blind choice between two pictures by people: planned, shown on a local page, kept, analysed by exact tests."""
