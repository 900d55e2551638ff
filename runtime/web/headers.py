"""What every answer says of what a browser may do with it: nothing from elsewhere, in no frame, kept nowhere."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src {connect}; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)


def security_headers(connect: Iterable[str] = ()) -> Mapping[str, str]:
    """Headers by their names in small letters; `connect` are addresses that the page's script may call besides."""
    return MappingProxyType(
        {
            "content-security-policy": _POLICY.format(connect=" ".join(["'self'", *connect])),
            "x-content-type-options": "nosniff",
            "x-frame-options": "DENY",
            "referrer-policy": "no-referrer",
            "cross-origin-opener-policy": "same-origin",
            "cross-origin-resource-policy": "same-origin",
            "cache-control": "no-store",
            "permissions-policy": "camera=(), microphone=(), geolocation=()",
        }
    )
