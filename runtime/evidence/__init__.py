"""What a run's pictures are worth: each metric on a line from floor to ceiling, of one run and over several.

docs/evidence.md says what each rung means and how to read them.
"""
