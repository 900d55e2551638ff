"""Data sets: one file and one line here add a reader for ``md-train prepare``."""

# name -> (module in this package, attribute: a reader.DataSet). md-train prepare offers each as a command of its own.
# Import what is heavy inside functions: the command's help imports the modules.
READERS: dict[str, tuple[str, str]] = {
    "nsd": ("nsd", "NSD"),
    "things-eeg2": ("things.eeg2", "THINGS_EEG2"),
    "things-meg": ("things.meg", "THINGS_MEG"),
    "recording": ("recording", "RECORDING"),
}
