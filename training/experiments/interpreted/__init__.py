"""What the experiment `interpretation` found, put together: numbers, tables, sentences, figure, notes."""
