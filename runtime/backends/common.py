"""What is the same in every backend: it decodes with its decoder, and is closed at the end of a with statement."""

from __future__ import annotations

from ..closing import Closing
from ..decoders.belonging import Decoded
from ..generators.base import Float32
from .base import Decoder, Start


class Common(Closing):
    """Base of the classes behind :class:`.base.Backend`."""

    decoder: Decoder

    def decode(self, responses: Float32, *, semantic: bool = True) -> Decoded:
        """See :meth:`.base.Backend.decode`."""
        return self.decoder.decode(responses, screened=True, semantic=semantic)

    def decode_start(self, responses: Float32) -> Start:
        """See :meth:`.base.Backend.decode_start`."""
        context, latent = self.decoder.decode_start(responses, screened=True)
        return Start(context=context, latent=latent)
