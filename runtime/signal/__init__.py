"""From a continuous recording to epochs: one chain, run over a whole recording or sample by sample."""
