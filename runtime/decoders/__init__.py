"""The kinds of decoders that a checkpoint holds: one file and one line here add another."""

# kind -> module in this package, with `open_decoder(stored) -> Decoder` and `check_fitted(arrays, feature, n_targets)`,
# which refuses what a fitter gave. export/graphs/decoders/ has a graph for each.
KINDS: dict[str, str] = {"linear": ".linear", "network": ".network"}
