"""Ways to fit a decoder: one file and one line here add another."""

# name -> (module in this package, class). The class is a frozen dataclass of the settings; its
# `for_feature(feature, **options)` gives the defaults for one feature, changed by `options`. md-train fit offers
# each as --decoder and its fields as --decoder-option; checkpoints need no change, as long as what is fitted is of a
# kind that runtime/decoders/ opens. Import what is heavy inside `fit`: the command's help reads the classes.
DECODERS: dict[str, tuple[str, str]] = {
    "ridge": ("ridge", "Ridge"),
    "mlp": ("mlp", "Mlp"),
    "transformer": ("transformer", "Transformer"),
    "nice": ("nice", "Nice"),
    "eegnet": ("eegnet", "EegNet"),
    "atm": ("atm", "Atm"),
    "brain_module": ("brain_module", "BrainModule"),
}
