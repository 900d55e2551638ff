"""The commands of md-stream, one file each."""
