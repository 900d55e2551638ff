"""What a live session needs of this machine: each check is one function, and stands in `CHECKS`."""

from __future__ import annotations

import configparser
import os
import platform
import re
import socket
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...runtime.data.layout import Channel
from ...runtime.errors import MindDiffuserError, MissingExtra
from ..clock import now
from ..records import SignalInfo
from .found import Found, look
from .inlet import Inlet
from .library import HOW_TO_GET_IT, pylsl_library, settings_file
from .outlet import SignalOutlet

GOOD, NOTE, BAD = "ok", "note", "FAILED"
# pylsl's wheels bring liblsl for these machines alone; elsewhere pip installs it without a word, and without liblsl.
_WHEELS = "Linux on x86_64 with glibc 2.35 or newer, macOS, and Windows on x86_64"
_GLIBC = (2, 35)
# liblsl's ports: discovery, then one for the data and one for the clock of each stream.
_DISCOVERY, _FIRST, _N_PORTS = 16571, 16572, 32
_GROUP = "239.255.172.215"
_ANSWER = 5.0
# A pause of a millisecond that takes this much longer, in seconds, 1 time in 100.
_SLOW = 0.005
_N_PAUSES = 200


@dataclass(frozen=True, kw_only=True)
class Finding:
    """`state` is `GOOD`, `NOTE` (good to know) or `BAD`; `text` says what was found and what to do."""

    check: str
    state: str
    text: str


def examine() -> Iterator[Finding]:
    """Every check, one after the other. Those that need liblsl are left out where it does not load."""
    works = True
    for name, check, needs_lsl in CHECKS:
        if needs_lsl and not works:
            continue
        for state, text in check():
            works = works and (name != "liblsl" or state != BAD)
            yield Finding(check=name, state=state, text=text)


def library() -> Iterator[tuple[str, str]]:
    """Whether liblsl loads, which one, and whether pip could have brought it."""
    asked = os.environ.get("PYLSL_LIB", "")
    if asked and not Path(asked).is_file():
        yield BAD, f"PYLSL_LIB is {asked!r}, which is no file: give the path of liblsl itself, or unset it"
    try:
        pylsl = pylsl_library()
    except MissingExtra as error:
        machine, glibc = platform.machine(), glibc_version()
        why = f"; pylsl's wheels bring it for {_WHEELS} alone, and this is {platform.system()} on {machine}"
        why += f" with glibc {'.'.join(map(str, glibc))}" if glibc else ""
        yield BAD, f"{error}{'' if wheel_brings_it(platform.system(), machine, glibc) else why}"
        return
    version = pylsl.library_version()
    tag = re.search(r"refs/tags/(v[^/]+)", pylsl.library_info())
    named = tag.group(1) if tag else f"{version // 100}.{version % 100}"
    yield GOOD, f"liblsl {named} of {pylsl.lib.libpath}, protocol {pylsl.protocol_version() / 100:.2f}"
    if "security" in pylsl.library_info():
        yield NOTE, "this liblsl is one with encryption: both ends need it"
    if version < 117:
        yield NOTE, f"liblsl {named} finds only one of several streams of one machine: {HOW_TO_GET_IT}"


def wheel_brings_it(system: str, machine: str, glibc: tuple[int, ...] | None) -> bool:
    """Whether pip installs pylsl with liblsl on such a machine."""
    if system == "Linux":
        return machine == "x86_64" and glibc is not None and glibc >= _GLIBC
    return system == "Darwin" or (system == "Windows" and machine.lower() in ("amd64", "x86_64"))


def glibc_version() -> tuple[int, ...] | None:
    """None where the C library is another one."""
    name, text = platform.libc_ver()
    return tuple(int(part) for part in text.split(".")[:2]) if name == "glibc" and text else None


def settings() -> Iterator[tuple[str, str]]:
    """What liblsl is set to."""
    path = settings_file()
    if path is None:
        yield GOOD, "liblsl has no settings file: its defaults count (LSLAPICFG names one)"
        return
    yield from read_settings(path.read_text(encoding="utf-8", errors="replace"), str(path))


def read_settings(text: str, name: str) -> Iterator[tuple[str, str]]:
    """What a settings file says that matters here, and a mistake that liblsl keeps silent about."""
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    try:
        parser.read_string(text)
    except configparser.Error as error:
        yield BAD, f"{name} cannot be read ({str(error).splitlines()[0]:.120}): correct it"
        return
    session = parser.get("lab", "SessionID", fallback="")
    yield GOOD, f"settings of {name}"
    if session:
        yield NOTE, f"SessionID is {session!r} in {name}: only streams of this session are found"
    peers = parser.get("lab", "KnownPeers", fallback="").strip()
    if peers and not (peers.startswith("{") and peers.endswith("}")):
        yield BAD, f"KnownPeers is {peers!r} in {name}, which liblsl reads as none: write {{{peers}}}, with the braces"
    scope = parser.get("multicast", "ResolveScope", fallback="").strip()
    if scope == "machine":
        yield NOTE, f"ResolveScope is machine in {name}: streams of other machines are not found"


def clock() -> Iterator[tuple[str, str]]:
    """Whether our clock is LSL's."""
    pylsl = pylsl_library()
    apart = []
    for _ in range(100):
        before, theirs, after = now(), pylsl.local_clock(), now()
        apart.append(max(before - theirs, theirs - after, 0.0))
    if max(apart) > 0:
        yield BAD, f"the clock of LSL and of this program are {max(apart):.6f} s apart: use another liblsl"
    else:
        yield GOOD, "this program and LSL read one clock"


def pauses() -> Iterator[tuple[str, str]]:
    """How exactly the system wakes a process."""
    over = []
    for _ in range(_N_PAUSES):
        before = time.monotonic()
        time.sleep(0.001)
        over.append(time.monotonic() - before - 0.001)
    late = float(np.percentile(over, 99))
    text = f"a pause of 1 ms takes {np.median(over) * 1e3:.2f} ms longer, 1 in 100 more than {late * 1e3:.1f} ms"
    if late > _SLOW:
        yield NOTE, f"{text}: the machine is busy or saves power; md-stream certify measures what it costs"
    else:
        yield GOOD, text


def ports() -> Iterator[tuple[str, str]]:
    """Whether liblsl's ports are free here. What a firewall does to them only another machine can see."""
    free = sum(_binds(socket.SOCK_STREAM, port) for port in range(_FIRST, _FIRST + _N_PORTS))
    open_them = (
        f"a firewall must let UDP {_DISCOVERY} and TCP and UDP {_FIRST} to {_FIRST + _N_PORTS - 1} through, to see "
        "streams of other machines"
    )
    if not free:
        yield NOTE, f"all ports from {_FIRST} on are taken: liblsl takes others at random, which a firewall may close"
    yield GOOD if free else NOTE, f"{free} of {_N_PORTS} ports are free; {open_them}"
    if not _binds(socket.SOCK_DGRAM, _DISCOVERY):
        yield (
            BAD,
            f"UDP port {_DISCOVERY} is taken by a program that does not share it: streams cannot be found; end it",
        )


def _binds(kind: socket.SocketKind, port: int) -> bool:
    with socket.socket(socket.AF_INET, kind) as tried:
        if kind == socket.SOCK_DGRAM:  # as liblsl does: several programs listen for queries
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind(("", port))
        except OSError:
            return False
        return True


def multicast() -> Iterator[tuple[str, str]]:
    """Whether a multicast packet reaches this machine itself, as queries for streams must."""
    group = socket.inet_aton(_GROUP)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
        listener.settimeout(1.0)
        word = uuid.uuid4().bytes
        try:
            listener.bind(("", 0))
            listener.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group + socket.inet_aton("0.0.0.0"))
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
                sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 0)  # not beyond this machine
                sender.sendto(word, (_GROUP, listener.getsockname()[1]))
            heard = listener.recv(64) == word
        except OSError:
            heard = False
    if heard:
        yield GOOD, "multicast works within this machine"
    else:
        yield (
            NOTE,
            (
                "multicast does not work (no network, a VPN or a container): streams of other machines are found only "
                "with KnownPeers = {their address} in lsl_api.cfg"
            ),
        )


def loopback() -> Iterator[tuple[str, str]]:
    """Whether a stream of this machine is found, sends and has a clock."""
    name = f"md-doctor-{uuid.uuid4().hex}"
    info = SignalInfo(name=name, channels=(Channel(name="E0", type="eeg"),), sfreq=100.0, units=("V",), source_id=name)
    outlet = SignalOutlet(info, type="EEG")
    found = _named(look(lambda streams: bool(_named(streams, name)), _ANSWER, 0.0), name)
    if not found:
        yield (
            BAD,
            (
                "a stream of this machine is not found by itself: a firewall blocks UDP on the loopback; allow it, or "
                "set KnownPeers = {127.0.0.1} in lsl_api.cfg"
            ),
        )
        return
    inlet = Inlet(found[0])
    try:
        inlet.open(_ANSWER)
        outlet.push(np.ones((1, 1)), np.array([now()]))
        stamps, _ = inlet.pull(_ANSWER)
        _, uncertainty, _ = inlet.clock_offset(_ANSWER)
    except MindDiffuserError as error:
        yield BAD, f"a stream of this machine is found, and fails then ({error}): a firewall blocks the ports of liblsl"
        return
    if not len(stamps):
        yield BAD, "a stream of this machine is found, and nothing of it arrives: a firewall blocks TCP on the loopback"
        return
    yield (
        GOOD,
        f"a stream of this machine arrives, and its clock is known to {uncertainty * 1e3:.2f} ms",
    )


def _named(streams: Sequence[Found], name: str) -> list[Found]:
    return [one for one in streams if one.name == name]


def privacy() -> Iterator[tuple[str, str]]:
    """What LSL does not do."""
    yield (
        NOTE,
        (
            "LSL has no passwords and no encryption: whoever reaches this machine can receive its streams. Use a "
            "network of the lab's own; for a session within one Linux machine, start its programs in a shell of: "
            "unshare -rn sh -c 'ip link set lo up; exec bash'"
        ),
    )


Check = Callable[[], Iterator[tuple[str, str]]]
CHECKS: tuple[tuple[str, Check, bool], ...] = (
    ("liblsl", library, False),
    ("settings", settings, False),
    ("clock", clock, True),
    ("pauses", pauses, False),
    ("ports", ports, False),
    ("multicast", multicast, False),
    ("loopback", loopback, True),
    ("privacy", privacy, False),
)
"""Name, check, and whether it needs liblsl."""
