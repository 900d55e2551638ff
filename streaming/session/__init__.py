"""A live session put together: acquisition in a process of its own, decoding, drawing, the books, the page, the files."""
