"""What stands behind ``--source lsl:``: which stream, and which markers."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields

from ...runtime.errors import InputError, shown

NO_MARKERS = "none"


@dataclass(frozen=True, kw_only=True)
class Address:
    """Which streams are meant; "" leaves a field open.

    Attributes
    ----------
    any
        Name, type or source_id of the signal.
    name, type, id, host, uid
        Of the signal, each on its own: `id` is the source_id.
    markers
        Name, type or source_id of the marker stream; `NO_MARKERS` for a session without.
    stim
        The channel of the signal that carries trigger codes, instead of a marker stream.
    mask
        Bits of the stimulus channel that count, 0 for all; BioSemi's codes are in the lowest 8 or 16.
    """

    any: str = ""
    name: str = ""
    type: str = ""
    id: str = ""
    host: str = ""
    uid: str = ""
    markers: str = ""
    stim: str = ""
    mask: int = 0

    def __post_init__(self) -> None:
        if self.markers and self.stim:
            raise InputError(
                f"the source has both markers={shown(self.markers)} and stim={shown(self.stim)}: give one of them"
            )
        if self.mask and not self.stim:
            raise InputError("the source has a mask and no stimulus channel: give stim=CHANNEL with it")


_KEYS = tuple(field.name for field in fields(Address) if field.name != "any")
# A comma belongs to a name unless a key follows it.
_COMMA = re.compile(rf",(?=(?:{'|'.join(_KEYS)})=)")


def read_address(text: str) -> Address:
    """Read "name=Amp,markers=Stimuli", or the name, type or source_id of the signal alone.

    Raises
    ------
    InputError
        A key is unknown, given twice or empty, or a combination makes no sense.
    """
    given: dict[str, str] = {}
    for part in _COMMA.split(text) if text else ():
        key, sign, value = part.partition("=")
        if not sign and not given:
            key, value = "any", part
        elif key not in _KEYS:
            raise InputError(f"the source has {shown(part)}: give {', '.join(f'{key}=…' for key in _KEYS)}")
        if key in given or not value.strip():
            raise InputError(f"the source has {shown(part)}: give each key once, with a value")
        given[key] = value.strip()
    mask = given.pop("mask", "0")
    try:
        bits = int(mask, 0)
    except ValueError:
        bits = -1
    if bits < 0:
        raise InputError(f"the mask is {shown(mask)}: give a whole number such as 255 or 0xff")
    return Address(mask=bits, **given)
