"""What the doctor says of machines and settings that are not this one's."""

import pytest

from minddiffuser.streaming.lsl.doctor import BAD, GOOD, NOTE, read_settings, wheel_brings_it


@pytest.mark.parametrize(
    ("system", "machine", "glibc", "brings"),
    [
        ("Linux", "x86_64", (2, 35), True),
        ("Linux", "x86_64", (2, 34), False),  # RHEL 9
        ("Linux", "x86_64", None, False),  # Alpine
        ("Linux", "aarch64", (2, 39), False),  # Raspberry Pi, Jetson
        ("Darwin", "arm64", None, True),
        ("Windows", "AMD64", None, True),
        ("Windows", "ARM64", None, False),
    ],
)
def test_where_pip_brings_liblsl(system: str, machine: str, glibc: tuple[int, int] | None, brings: bool) -> None:
    assert wheel_brings_it(system, machine, glibc) is brings


@pytest.mark.parametrize(
    ("text", "states", "word"),
    [
        ("", [GOOD], "settings of"),
        ("[lab]\nSessionID = left lab\n", [GOOD, NOTE], "'left lab'"),
        ("[lab]\nKnownPeers = {10.0.0.2, 10.0.0.3}\n", [GOOD], "settings of"),
        ("[lab]\nKnownPeers = 10.0.0.2, 10.0.0.3\n", [GOOD, BAD], "write {10.0.0.2, 10.0.0.3}"),
        ("[multicast]\nResolveScope = machine\n", [GOOD, NOTE], "not found"),
        ("SessionID = x\n", [BAD], "cannot be read"),
    ],
)
def test_settings_are_read_as_liblsl_does(text: str, states: list[str], word: str) -> None:
    found = list(read_settings(text, "lsl_api.cfg"))
    assert [state for state, _ in found] == states
    assert word in found[-1][1]
