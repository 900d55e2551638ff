"""A recorded session run again, and compared with what it gave then."""
