"""Pictures in any folder scored against stimuli in another: ``md-reconstruct evaluate``."""
