"""From what a source gives to epochs: without threads and without clocks, so that a test feeds it step by step."""
