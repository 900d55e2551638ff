"""Which stream is meant, among those that are there: no network."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from minddiffuser.runtime.errors import InputError
from minddiffuser.streaming.lsl import found as module
from minddiffuser.streaming.lsl.address import read_address
from minddiffuser.streaming.lsl.found import Found, find, is_successor, weakness

AMP = Found(
    name="Amp",
    type="EEG",
    n_channels=8,
    sfreq=250.0,
    format="float32",
    source_id="amp-1",
    uid="uid-amp",
    hostname="lab",
    session_id="default",
    created_at=1.0,
    handle=None,
)
OTHER = replace(AMP, name="Other", source_id="amp-2", uid="uid-other", hostname="attic")
MEG = replace(AMP, name="Squid", type="MEG", source_id="meg-1", uid="uid-meg")
MARKERS = replace(AMP, name="Stimuli", type="Markers", n_channels=1, sfreq=0.0, format="string", source_id="m", uid="u")
KEYS = replace(MARKERS, name="Keys", source_id="k", uid="uid-keys")
# Some programs give one name to all that they send.
NAMESAKE = replace(MARKERS, name="Amp", source_id="n", uid="uid-namesake")


def choose(monkeypatch: pytest.MonkeyPatch, text: str, streams: Sequence[Found]) -> tuple[str, str | None]:
    monkeypatch.setattr(module, "look", lambda *_: list(streams))
    signal, markers = find(read_address(text), "eeg", 1.0)
    return signal.uid, None if markers is None else markers.uid


@pytest.mark.parametrize(
    ("text", "streams", "chosen"),
    [
        ("", [AMP, MARKERS, MEG], ("uid-amp", "u")),
        ("Amp", [AMP, OTHER, MARKERS], ("uid-amp", "u")),
        ("amp-2", [AMP, OTHER, MARKERS], ("uid-other", "u")),
        ("MEG", [AMP, MEG, MARKERS], ("uid-meg", "u")),
        ("type=EEG,host=attic", [AMP, OTHER, MARKERS], ("uid-other", "u")),
        ("id=amp-1,markers=Keys", [AMP, OTHER, MARKERS, KEYS], ("uid-amp", "uid-keys")),
        ("name=Amp,markers=k", [AMP, NAMESAKE, KEYS], ("uid-amp", "uid-keys")),
        ("name=Amp,markers=Amp", [AMP, NAMESAKE, KEYS], ("uid-amp", "uid-namesake")),
        ("uid=uid-amp,markers=none", [AMP, OTHER, MARKERS], ("uid-amp", None)),
        ("Amp,stim=Status", [AMP, OTHER], ("uid-amp", None)),
    ],
)
def test_the_one_that_is_meant_is_taken(
    monkeypatch: pytest.MonkeyPatch, text: str, streams: list[Found], chosen: tuple[str, str | None]
) -> None:
    assert choose(monkeypatch, text, streams) == chosen
    assert choose(monkeypatch, text, streams[::-1]) == chosen


@pytest.mark.parametrize(
    ("text", "streams", "said"),
    [
        ("", [AMP, OTHER, MARKERS], ["2 streams", "'Amp'", "'Other'", "choose one, such as name=Amp"]),
        ("", [AMP, replace(AMP, uid="twin"), MARKERS], ["2 streams", "choose one, such as uid=uid-amp"]),
        ("", [AMP, replace(AMP, uid="far", hostname="attic"), MARKERS], ["such as host=lab"]),
        ("", [AMP, MARKERS, KEYS], ["2 marker streams of type Markers", "such as markers=Stimuli"]),
        ("", [AMP, MARKERS, replace(MARKERS, uid="twin", source_id="m2")], ["such as markers=m"]),
        ("", [MEG, MARKERS], ["no streams with a rate that fit type=EEG", "'Squid'"]),
        ("", [AMP], ["no marker streams", "'Amp'", "stim=CHANNEL", "markers=none"]),
        ("", [], ["no streams", "and no others", "md-stream doctor"]),
        ("Stimuli", [AMP, MARKERS], ["no streams with a rate that fit the name, type or source_id 'Stimuli'"]),
        ("Amp,markers=Amp", [AMP, MARKERS], ["no marker streams named 'Amp'"]),
    ],
)
def test_none_and_several_are_refused_and_listed(
    monkeypatch: pytest.MonkeyPatch, text: str, streams: list[Found], said: list[str]
) -> None:
    with pytest.raises(InputError, match=".") as raised:
        choose(monkeypatch, text, streams)
    assert all(part in str(raised.value) for part in said), str(raised.value)


def test_a_hostile_name_is_one_printable_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=".") as raised:
        choose(monkeypatch, "Amp", [replace(MEG, name="a\n\x1b[31m" + "x" * 10_000)])
    assert str(raised.value).isprintable()
    assert len(str(raised.value)) < 1000


def test_a_successor_has_the_same_source_id_and_may_have_another_rate() -> None:
    assert is_successor(replace(AMP, uid="new", sfreq=500.0, n_channels=4, hostname="attic"), AMP)
    assert not is_successor(OTHER, AMP)
    assert not is_successor(replace(MARKERS, source_id="amp-1"), AMP)


@pytest.mark.parametrize("source_id", ["", "-8237498237498237498", "8237498237498237498"])
def test_without_a_lasting_source_id_everything_else_must_be_the_same(source_id: str) -> None:
    lost = replace(AMP, source_id=source_id)
    assert is_successor(replace(lost, uid="new", source_id=source_id and "1237498237498237498"), lost)
    assert not is_successor(replace(lost, uid="new", n_channels=9), lost)
    assert not is_successor(replace(lost, uid="new", hostname="attic"), lost)
    assert "source_id" in weakness(lost)
    assert not weakness(AMP)
