"""Published networks that pictures are compared by, one file each."""
