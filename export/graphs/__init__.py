"""The networks' graphs that a bundle holds: one file and one line here add another."""

# name -> module beside this one, with `graph(models, semantic=...) -> NetworkGraph`
NETWORK_GRAPHS: dict[str, str] = {
    "denoise": ".denoise",
    "vae_decode": ".vae_decode",
    "clip_structure": ".clip_structure",
    "structure_gradient": ".structure_gradient",
    "denoise_gradient": ".denoise_gradient",
}
