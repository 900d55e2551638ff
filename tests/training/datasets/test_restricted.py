"""The restricted reader: equal to Python's own on honest files, and deaf to every other instruction."""

import os
import pickle
import struct
import tracemalloc
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from minddiffuser.runtime.errors import FileError
from minddiffuser.training.datasets.restricted import read_published

WHAT = "the training epochs"


def honest() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {
        "preprocessed_eeg_data": rng.standard_normal((6, 4, 17, 100)),
        "ch_names": ["O1", "Oz", "O2"],
        "times": np.linspace(-0.2, 0.79, 100),
        "sfreq": 1000,
        "highpass": 0.01,
        "flag": True,
        "nothing": None,
        "pair": (1, -2, 1 << 40),
    }


def write_numpy(path: Path, content: Any) -> Path:
    with open(path, "wb") as file:
        np.save(file, content, allow_pickle=True)
    return path


def write_pickle(path: Path, content: Any, protocol: int = 4) -> Path:
    with open(path, "wb") as file:
        pickle.dump(content, file, protocol=protocol)
    return path


def same(a: Any, b: Any) -> bool:
    if isinstance(a, np.ndarray | np.generic):
        if not isinstance(b, type(a)) or a.dtype != b.dtype or a.shape != b.shape:
            return False
        return all(map(same, a.reshape(-1), b.reshape(-1))) if a.dtype == object else a.tobytes() == b.tobytes()
    if isinstance(a, dict):
        return type(b) is dict and list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and (a == b or (a != a and b != b))


@pytest.mark.parametrize("write", [write_numpy, write_pickle])
def test_honest_files_are_read_and_distinguished_by_content(tmp_path: Path, write: Callable[..., Path]) -> None:
    path = write(tmp_path / "preprocessed_eeg_training.npy", honest())
    published = read_published(path, WHAT)
    assert published.form == {write_numpy: "np.save", write_pickle: "pickle"}[write]
    assert same(honest(), dict(published.content))


leaves = (
    st.none()
    | st.booleans()
    | st.integers(-(1 << 500), 1 << 500)
    | st.floats()
    | st.text(max_size=40)
    | st.binary(max_size=300)
    | st_numpy.arrays(
        st_numpy.boolean_dtypes()
        | st_numpy.integer_dtypes(endianness="=")
        | st_numpy.floating_dtypes(endianness="=")
        | st_numpy.complex_number_dtypes(endianness="=")
        | st_numpy.integer_dtypes(endianness=">")
        | st_numpy.unicode_string_dtypes(endianness="=", max_len=5),
        st_numpy.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4),
    )
    | st.floats().map(np.float32)
    | st.integers(0, 9).map(np.int64)
    | st.text("abc", max_size=4).map(np.str_)
)
values = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(st.text(max_size=5) | st.integers(), inner, max_size=4)
    ),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.dictionaries(st.text(max_size=6), values, max_size=4), protocol=st.sampled_from([2, 3, 4, 5]))
def test_plain_content_is_what_pickle_itself_reads(tmp_path: Path, content: dict[str, Any], protocol: int) -> None:
    path = write_pickle(tmp_path / "any.npy", content, protocol)
    if protocol == 2 and "__builtin__\nbytes" in path.read_bytes().decode("latin-1"):
        return  # empty bytes, which protocol 2 writes as a call of bytes()
    assert same(content, dict(read_published(path, WHAT).content))


def test_orders_of_axes_and_object_arrays_of_text(tmp_path: Path) -> None:
    content = {
        "fortran": np.asfortranarray(np.arange(24.0).reshape(2, 3, 4)),
        "words": np.array([["aardvark", None], [3, "zebra"]], dtype=object),
        "concepts": np.array(["00001_aardvark", "00002_abacus"]),
    }
    found = read_published(write_numpy(tmp_path / "image_metadata.npy", content), WHAT).content
    assert same(content["words"], found["words"])
    np.testing.assert_array_equal(found["fortran"], content["fortran"])
    assert found["fortran"].flags.f_contiguous
    assert found["concepts"].tolist() == ["00001_aardvark", "00002_abacus"]


class Calls:
    """What pickles as a call of a function."""

    def __init__(self, function: Any, *given: Any) -> None:
        self.function, self.given = function, given

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.function, self.given


def attacks(marker: Path) -> dict[str, tuple[Any, str]]:
    command = f"echo > {marker}"
    code = f"open({str(marker)!r}, 'w')"
    return {
        "a command": (Calls(os.system, command), f"{os.system.__module__}.system"),
        "eval": (Calls(eval, code), "builtins.eval"),
        "exec": (Calls(exec, code), "builtins.exec"),
        "open": (Calls(open, str(marker), "w"), "open"),
        "a pickle in a pickle": (Calls(pickle.loads, pickle.dumps(Calls(eval, code))), ".loads"),
        "a numpy function that reads files": (Calls(np.fromfile, str(marker)), "fromfile"),
        "a numpy function that allocates": (Calls(np.zeros, 1 << 40), "zeros"),
        "numpy.load": (Calls(np.load, str(marker)), "numpy.load"),
        "getattr": (Calls(getattr, int, "mro"), "builtins.getattr"),
        "in a list": ([1, [Calls(eval, code)]], "builtins.eval"),
        "in an object array": (np.array([Calls(eval, code), None], dtype=object), "builtins.eval"),
        "a class of its own": (OrderedDict(a=1), "collections.OrderedDict"),
        "a matrix": (np.matrix([[1.0]]), "matrix"),
        "a set": ({1, 2}, "a set"),
        "a function by name alone": (os.getcwd, "getcwd"),
        "a masked array": (np.ma.masked_array([1.0], [True]), "numpy.ma"),
    }


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize("name", attacks(Path("x")))
def test_nothing_is_called_whatever_a_file_names(tmp_path: Path, name: str, protocol: int) -> None:
    marker = tmp_path / "marker"
    attack, named = attacks(marker)[name]
    for path in (
        write_pickle(tmp_path / "a.npy", {"preprocessed_eeg_data": attack}, protocol),
        write_numpy(tmp_path / "b.npy", {"preprocessed_eeg_data": attack}),
    ):
        with pytest.raises(FileError, match=WHAT) as caught:
            read_published(path, WHAT)
        if name != "a set" or path.name == "b.npy":  # protocol 2 writes a set as a call
            assert named.replace("builtins", "builtin") in str(caught.value).replace("builtins", "builtin").replace(
                "__builtin__", "builtin"
            )
        assert not marker.exists()


def test_the_attacks_are_real(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    path = write_pickle(tmp_path / "a.npy", {"x": attacks(marker)["eval"][0]})
    pickle.loads(path.read_bytes())
    assert marker.exists()


def test_a_pickle_inside_bytes_stays_bytes(tmp_path: Path) -> None:
    inner = pickle.dumps(Calls(eval, "1/0"))
    assert read_published(write_pickle(tmp_path / "a.npy", {"x": inner}), WHAT).content["x"] == inner


def hand_made(*parts: bytes) -> bytes:
    return b"\x80\x04" + b"".join(parts) + b"."


def named(module: str, name: str) -> bytes:
    return b"".join(b"\x8c" + bytes([len(text)]) + text.encode() for text in (module, name)) + b"\x93"


EMPTY_ARRAY = (
    named("numpy.core.multiarray", "_reconstruct") + named("numpy", "ndarray") + b"K\x00\x85" + b"C\x01b" + b"\x87R"
)
FLOAT64 = (
    named("numpy", "dtype")
    + b"\x8c\x02f8\x89\x88\x87R"
    + b"(K\x03\x8c\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
)


def array_of(shape: bytes, content: bytes) -> bytes:
    return b"}\x8c\x01x" + EMPTY_ARRAY + b"(K\x01" + shape + FLOAT64 + b"\x89" + content + b"tb" + b"s"


ONE = b"K\x01\x85", b"C\x08" + bytes(8)
# Lists numbered in the memory, each of ten times the one before: 10**12 values in 400 bytes.
DOUBLED = [b"]\x940", *(b"](" + (b"h" + bytes([n])) * 10 + b"e\x940" for n in range(12))]
TOO_LITTLE = "needs 17179869176"
TWICE = b"(K\x01" + ONE[0] + FLOAT64 + b"\x89" + ONE[1] + b"tb"
BOMBS = {
    "bytes of a petabyte": (hand_made(b"}\x8c\x01x\x8e", struct.pack("<Q", 1 << 50)), "truncated"),
    "text of a petabyte": (hand_made(b"}\x8c\x01x\x8d", struct.pack("<Q", 1 << 50)), "truncated"),
    "a number of a gigabyte": (hand_made(b"}\x8c\x01x\x8b", struct.pack("<i", 1 << 30)), "whole number"),
    "a number of negative length": (hand_made(b"}\x8c\x01x\x8b", struct.pack("<i", -5)), "whole number"),
    "a huge array of eight bytes": (hand_made(array_of(b"J\xff\xff\xff\x7f\x85", b"C\x08" + bytes(8))), TOO_LITTLE),
    "a shape of negative size": (hand_made(array_of(b"J\xff\xff\xff\xff\x85", b"C\x08" + bytes(8))), "shape"),
    "many empty rows": (hand_made(array_of(b"J\xff\xff\xff\x7fK\x00\x86", b"C\x00")), "empty array"),
    "a shape that is no tuple": (hand_made(array_of(b"K\x01", b"C\x08" + bytes(8))), "shape"),
    "lists of lists of lists": (hand_made(b"}\x8c\x01x" + b"]" * 200 + b"a" * 199 + b"s"), "deeper"),
    "the same list a billion times": (hand_made(b"}\x8c\x01x", *DOUBLED, b"h\x0cs"), "more than 500000 values"),
    "itself": (hand_made(b"}\x8c\x01x]\x94h\x00as"), "deeper"),
    "an array never filled": (hand_made(b"}\x8c\x01x" + EMPTY_ARRAY + b"s"), "without its numbers"),
    "an array filled twice": (hand_made(array_of(*ONE)[:-1], TWICE, b"s"), "unknown form"),
    "a name as value": (hand_made(b"}\x8c\x01x", named("numpy", "ndarray"), b"s"), "name in place of a value"),
    "a list as key": (hand_made(b"}]K\x01s"), "key"),
    "a state for a dictionary": (hand_made(b"}}b"), "state"),
    "a call of text": (hand_made(b"\x8c\x01x)R"), "calls"),
    "an extension": (hand_made(b"\x82\x01"), "EXT1"),
    "a persistent object": (hand_made(b"\x8c\x01xQ"), "BINPERSID"),
    "a new object": (hand_made(named("numpy", "dtype") + b")\x81"), "NEWOBJ"),
    "an empty stack": (hand_made(b""), "no whole pickle"),
    "a mark as value": (hand_made(b"("), "no whole pickle"),
    "a memory that was never written": (hand_made(b"h\x07"), "no whole pickle"),
    "protocol 9": (b"\x80\x09}.", "protocol 9"),
    "a structured dtype": (
        hand_made(b"}\x8c\x01x", named("numpy", "dtype"), b"\x8c\x02V8\x89\x88\x87Rs"), "dtype"
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.long if name == "the same list a billion times" else ()) for name in BOMBS],
)
def test_bombs_are_refused_without_memory(tmp_path: Path, name: str) -> None:
    content, said = BOMBS[name]
    path = tmp_path / "bomb.npy"
    path.write_bytes(content)
    tracemalloc.start()
    try:
        with pytest.raises(FileError, match=WHAT) as caught:
            read_published(path, WHAT)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert said in str(caught.value)
    assert peak < 100e6  # the list of lists is counted up to its limit; nothing else comes near


def test_every_truncated_file_says_so(tmp_path: Path) -> None:
    content = {"preprocessed_eeg_data": np.arange(12.0).reshape(3, 4), "ch_names": ["Oz"]}
    for write in (write_pickle, write_numpy):
        whole = write(tmp_path / "whole.npy", content).read_bytes()
        for length in range(len(whole)):
            path = tmp_path / "part.npy"
            path.write_bytes(whole[:length])
            with pytest.raises(FileError, match=WHAT):
                read_published(path, WHAT)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(0, 10_000), byte=st.integers(0, 255), numpy_form=st.booleans())
def test_a_changed_byte_gives_a_value_or_one_sentence(tmp_path: Path, at: int, byte: int, numpy_form: bool) -> None:
    content = {"a": np.arange(3, dtype="<i2"), "b": ["x", 1.5, (None, True)], "c": np.array(["p", "qr"])}
    data = bytearray((write_numpy if numpy_form else write_pickle)(tmp_path / "m.npy", content).read_bytes())
    data[at % len(data)] = byte
    (tmp_path / "m.npy").write_bytes(data)
    said = ""
    try:
        read_published(tmp_path / "m.npy", WHAT)
    except FileError as error:
        said = str(error)
    assert "\n" not in said


def test_other_files_are_named(tmp_path: Path) -> None:
    fmri = tmp_path / "fmri.npy"
    np.save(fmri, np.zeros((5, 7), np.float32))
    with pytest.raises(FileError, match=r"float32 \(5, 7\), which looks like responses of fMRI"):
        read_published(fmri, WHAT)
    np.save(fmri, np.zeros((5, 7, 9), np.float32))
    with pytest.raises(FileError, match="epochs without their dictionary"):
        read_published(fmri, WHAT)
    write_pickle(fmri, [1, 2])
    with pytest.raises(FileError, match="holds a list, expected a dictionary"):
        read_published(fmri, WHAT)
    fmri.write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(FileError, match="Git LFS pointer"):
        read_published(fmri, WHAT)
    fmri.write_bytes(b"")
    with pytest.raises(FileError, match="empty"):
        read_published(fmri, WHAT)
    with pytest.raises(FileError, match="does not exist"):
        read_published(tmp_path / "none.npy", WHAT)


def test_a_file_of_the_published_size_costs_no_memory(tmp_path: Path) -> None:
    """63 channels x 250 samples of 16,540 pictures four times: 8.3 GB, most of it a hole on the disk."""
    shape = (16540, 4, 63, 250)
    n_bytes = int(np.prod(shape)) * 8
    path = tmp_path / "preprocessed_eeg_training.npy"
    with open(path, "wb") as file:
        file.write(b"\x80\x04}\x8c\x15preprocessed_eeg_data" + EMPTY_ARRAY + b"(K\x01(")
        file.write(b"".join(b"J" + struct.pack("<i", n) for n in shape) + b"t" + FLOAT64 + b"\x89\x8e")
        file.write(struct.pack("<Q", n_bytes))
        start = file.tell()
        file.seek(start + n_bytes - 8)
        file.write(struct.pack("<d", 2.5) + b"tbs.")
    tracemalloc.start()
    try:
        array = read_published(path, WHAT).content["preprocessed_eeg_data"]
        last = float(array[-1, -1, -1, -1])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert array.shape == shape
    assert last == 2.5
    assert not array.flags.writeable
    assert peak < 1e6
