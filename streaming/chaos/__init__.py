"""Faults on purpose: a seed chooses them, a source suffers them, and what was made of it is compared with the truth."""
