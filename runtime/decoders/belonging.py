"""What decoders belong to: one subject, the models and layers that they were fitted for, one layout of responses."""

from __future__ import annotations

from pathlib import Path

from ..data.layout import ResponseLayout
from ..errors import InputError


class Belonging:
    """The refusals of a checkpoint and of a bundle alike, by name.

    Attributes
    ----------
    what : str
        "checkpoint" or "bundle".
    folder : Path
    subject, preset, models_name, models_hash : str
    layout : ResponseLayout
        What one trial's responses are: modality, shape, regions or channels, rate.
    """

    what: str
    folder: Path
    subject: str
    preset: str
    models_name: str
    models_hash: str
    layout: ResponseLayout

    def require_models(self, models_hash: str, name: str) -> None:
        """Raise :class:`InputError` unless it was made for these models."""
        if models_hash != self.models_hash:
            raise InputError(
                f"the {self.what} {self.folder} was made for other models ({self.models_name!r}, hash "
                f"{self.models_hash[:12]}) than {name!r} (hash {models_hash[:12]}): give those, or make it again"
            )

    def require_subject(self, subject: str) -> None:
        """Raise :class:`InputError` unless it belongs to this subject."""
        if subject != self.subject:
            raise InputError(
                f"the {self.what} {self.folder} decodes subject {self.subject!r}, the responses are of {subject!r}: "
                f"give that subject's {self.what}"
            )

    def require_layout(self, layout: ResponseLayout | None) -> None:
        """Raise :class:`InputError` unless responses are laid out as in training; None: it is not known."""
        if layout is not None:
            self.layout.require_same(layout, f"the {self.what} {self.folder}")

    def require_preset(self, preset: str) -> None:
        """Raise :class:`InputError` unless structure and mask are of this layer preset."""
        if preset != self.preset:
            raise InputError(
                f"the {self.what} {self.folder} is for the layer preset {self.preset!r}, but {preset!r} was requested: "
                f"load models with preset={self.preset!r}, or fit a checkpoint with md-train fit --layers {preset}"
            )
