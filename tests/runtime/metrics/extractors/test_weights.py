from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from minddiffuser.runtime.errors import FileError
from minddiffuser.runtime.files import sha256_of
from minddiffuser.runtime.metrics.extractors import EXTRACTORS, Given, Unavailable
from minddiffuser.runtime.metrics.extractors.network import Network, extractors_of
from minddiffuser.runtime.metrics.extractors.weights import WeightsFile, find_weights, load_into, read_weights

FILE = WeightsFile(name="net-0123abcd.pth", url="https://example.org/net-0123abcd.pth")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """PyTorch's cache, empty."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    return tmp_path / "hub" / "checkpoints"


def small() -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Conv2d(3, 2, 3), torch.nn.BatchNorm2d(2))


def test_a_weights_folder_comes_before_the_cache(tmp_path: Path, cache: Path) -> None:
    folder = tmp_path / "weights"
    folder.mkdir()
    given = Given(weights=folder)
    for place in (cache / FILE.name, folder / FILE.name, folder / "net-0123abcd.safetensors"):
        place.write_bytes(b"x")
        assert find_weights(FILE, given) == place


def test_what_is_missing_says_how_to_get_it(tmp_path: Path) -> None:
    for given in (Given(), Given(weights=tmp_path)):
        with pytest.raises(Unavailable, match=r"net-0123abcd\.pth .*https://example\.org.*--download-weights"):
            find_weights(FILE, given)
    with pytest.raises(FileError, match="does not exist"):
        find_weights(FILE, Given(weights=tmp_path / "nowhere"))


def test_a_download_that_fails_is_no_end_of_the_run(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    def refuse(*_given: object, **_named: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    with pytest.raises(Unavailable, match="no route to host"):
        find_weights(FILE, Given(download=True))
    monkeypatch.setattr(torch.hub, "download_url_to_file", lambda _url, to, **_named: Path(to).write_bytes(b"x"))
    assert find_weights(FILE, Given(download=True)) == cache / FILE.name


def test_a_published_file_has_its_published_hash(tmp_path: Path) -> None:
    path = tmp_path / FILE.name
    path.write_bytes(b"the published bytes")
    right = replace(FILE, sha256=sha256_of(path)[:8])
    assert find_weights(right, Given(weights=tmp_path)) == path
    path.write_bytes(b"the published")
    with pytest.raises(FileError, match="truncated or another one"):
        find_weights(right, Given(weights=tmp_path))


@pytest.mark.parametrize("ending", [".pth", ".pth.tar", ".safetensors"])
def test_weights_go_through_a_file(ending: str, tmp_path: Path) -> None:
    state, path = small().state_dict(), tmp_path / f"net{ending}"
    save_file(state, path) if ending == ".safetensors" else torch.save({"state_dict": state, "epoch": 3}, path)
    with torch.device("meta"):
        network = small()
    load_into(network, read_weights(path), path)
    for name, value in network.state_dict().items():
        torch.testing.assert_close(value, state[name])
    assert not any(value.requires_grad for value in network.parameters())
    assert not network.training


class _Code:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("this is code",)


def test_files_that_are_no_weights_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "net.pth"
    torch.save(small().state_dict(), path)
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"<html>404</html>"):
        path.write_bytes(content)
        with pytest.raises(FileError, match="damaged"):
            read_weights(path)
    torch.save({"x": _Code()}, path)
    with pytest.raises(FileError, match="more than tensors"):
        read_weights(path)
    assert "this is code" not in capsys.readouterr().out
    torch.save([1, 2], path)
    with pytest.raises(FileError, match="hold a list"):
        read_weights(path)
    torch.jit.script(torch.nn.Linear(2, 2)).save(str(path))
    with pytest.raises(FileError, match="TorchScript"):
        read_weights(path)
    path = tmp_path / "net.safetensors"
    path.write_bytes(b"\x00" * 20)
    with pytest.raises(FileError, match="damaged"):
        read_weights(path)


def test_weights_of_another_network_and_broken_ones(tmp_path: Path) -> None:
    state, path = small().state_dict(), tmp_path / "net.pth"
    with pytest.raises(FileError, match=r"of another network \(1 of its 7 .*1\.running_mean"):
        load_into(small(), {name: value for name, value in state.items() if name != "1.running_mean"}, path)
    with pytest.raises(FileError, match="of another network"):
        load_into(small(), {**state, "0.weight": torch.zeros(2, 3, 5, 5)}, path)
    with pytest.raises(FileError, match=r"NaN or infinite values in 0\.bias"):
        load_into(small(), {**state, "0.bias": torch.tensor([0, torch.nan])}, path)


def test_a_network_that_does_not_open_is_found_before_anything_is_computed(tmp_path: Path) -> None:
    network = Network(name="net", build=small, weights=FILE, side=8)
    save_file({"x": torch.zeros(2)}, tmp_path / FILE.converted)
    with pytest.raises(FileError, match="of another network"):
        extractors_of(network)[0].open(Given(weights=tmp_path))


@pytest.mark.parametrize("name", ["lpips", "dreamsim"])
def test_a_package_that_is_not_installed_is_said(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, name, None)
    with pytest.raises(Unavailable, match=rf"{name} is not installed .*minddiffuser\[metrics\]"):
        EXTRACTORS[name].open(Given())


def test_dreamsim_without_its_folder(tmp_path: Path) -> None:
    pytest.importorskip("dreamsim")
    with pytest.raises(Unavailable, match="the folder dreamsim is not in"):
        EXTRACTORS["dreamsim"].open(Given(weights=tmp_path))
