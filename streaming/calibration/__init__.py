"""The normaliser of a decoder, fitted again on trials of today."""
