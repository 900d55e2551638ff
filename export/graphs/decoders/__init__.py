"""A graph for each kind of decoder: one file and one line here add another."""

# kind -> module beside this one, with `add(build, scores, decoder, feature) -> name`: adds the nodes from z-scored
# responses (batch, *response_shape) to predictions (batch, n_predicted), and says what these are called.
DECODER_GRAPHS: dict[str, str] = {"linear": ".linear", "network": ".network"}
