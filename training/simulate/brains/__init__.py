"""Kinds of simulated brain: one file and one line here add another."""

# name -> (module in this package, class). The class keeps the contract of base.py; md-train simulate offers each as
# --brain. Import what is heavy inside the methods: the command's help reads the classes.
BRAINS: dict[str, tuple[str, str]] = {"clip": ("clip", "ClipBrain"), "gabor": ("gabor", "GaborBrain")}
DEFAULT_BRAIN = "gabor"
