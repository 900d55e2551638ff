"""A live session put together: acquisition in its own process, decoding, drawing, the books, the page, the files."""
