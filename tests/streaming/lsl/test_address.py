import pytest

from minddiffuser.runtime.errors import InputError
from minddiffuser.streaming.lsl.address import Address, read_address


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("", Address()),
        ("EEG", Address(any="EEG")),
        ("name=Amp,markers=Stimuli", Address(name="Amp", markers="Stimuli")),
        ("name=Amp, 2 m, left,type=EEG", Address(name="Amp, 2 m, left", type="EEG")),
        ("a name, with a comma,markers=none", Address(any="a name, with a comma", markers="none")),
        ("id=A=B,host=lab,uid=1-2", Address(id="A=B", host="lab", uid="1-2")),
        ("stim=Status,mask=0xff", Address(stim="Status", mask=255)),
    ],
)
def test_an_address_is_read(text: str, address: Address) -> None:
    assert read_address(text) == address


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nmae=Amp", "'nmae=Amp': give name="),
        ("name=", "give each key once, with a value"),
        ("name=A,name=B", "give each key once"),
        ("markers=M,stim=S", "give one of them"),
        ("mask=7", "no stimulus channel"),
        ("stim=S,mask=seven", "the mask is 'seven'"),
        ("stim=S,mask=-1", "the mask is '-1'"),
        ("any=Amp", "'any=Amp': give name="),
    ],
)
def test_what_cannot_be_meant_is_refused(text: str, said: str) -> None:
    with pytest.raises(InputError, match=".") as raised:
        read_address(text)
    assert said in str(raised.value)
