"""Any picture a person has, as the person sees it; squares and PNGs that are the same every time."""

from __future__ import annotations

import io
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from minddiffuser.runtime.errors import FileError, InputError, ShapeError
from minddiffuser.runtime.images import (
    cut_by_squares,
    fit_square,
    list_pictures,
    png_bytes,
    read_image,
    to_float,
    to_uint8,
    write_png,
)


@pytest.fixture
def colours(rng: np.random.Generator) -> np.ndarray:
    return rng.integers(0, 256, (9, 7, 3), dtype=np.uint8)


def test_png_round_trip(tmp_path: Path, colours: np.ndarray) -> None:
    write_png(tmp_path / "deep" / "a.png", colours)
    np.testing.assert_array_equal(read_image(tmp_path / "deep" / "a.png"), colours)
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["a.png"]  # no draft stays behind


def test_equal_pixels_give_equal_bytes(colours: np.ndarray) -> None:
    turned = np.asfortranarray(colours)
    assert png_bytes(colours) == png_bytes(turned)
    assert png_bytes(colours) != png_bytes(255 - colours)


@pytest.mark.parametrize("mode", ["L", "P", "1", "RGB", "RGBA", "LA", "I;16", "CMYK"])
def test_every_mode_becomes_rgb(tmp_path: Path, mode: str) -> None:
    path = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
    if mode == "I;16":
        Image.fromarray(np.full((5, 4), 128 * 257, np.uint16)).save(path)
    else:
        Image.new("RGB", (4, 5), (128, 128, 128)).convert(mode, palette=Image.Palette.ADAPTIVE).save(path)
    image = read_image(path)
    assert image.shape == (5, 4, 3)
    assert image.dtype == np.uint8
    if mode != "1":
        assert np.abs(image.astype(int) - 128).max() <= 3


def test_transparent_pixels_show_white_paper(tmp_path: Path) -> None:
    half = np.zeros((2, 2, 4), np.uint8)
    half[0] = (255, 0, 0, 255)
    half[1, 1] = (0, 0, 0, 128)
    Image.fromarray(half).save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png")
    np.testing.assert_array_equal(image[0], [[255, 0, 0]] * 2)
    np.testing.assert_array_equal(image[1, 0], [255, 255, 255])
    assert np.abs(image[1, 1].astype(int) - 127).max() <= 1


def test_transparent_palette_entry_is_white(tmp_path: Path) -> None:
    palette = Image.new("P", (2, 1))
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.putdata([0, 1])
    palette.save(tmp_path / "a.png", transparency=0)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), [[[255, 255, 255], [40, 50, 60]]])


def test_exif_turns_the_picture(tmp_path: Path) -> None:
    wide = np.zeros((8, 16, 3), np.uint8)
    wide[:, 8:] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # seen after a quarter turn clockwise: what was left is on top
    Image.fromarray(wide).save(tmp_path / "a.jpg", exif=exif, quality=95)
    image = read_image(tmp_path / "a.jpg")
    assert image.shape == (16, 8, 3)
    assert image[:7].max() < 30
    assert image[9:].min() > 225


def _damaged(tmp_path: Path, kind: str) -> Path:
    path = tmp_path / "a.png"
    whole = png_bytes(np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8))
    if kind == "text":
        path.write_bytes(b"not a picture")
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "truncated":
        path.write_bytes(whole[: len(whole) // 2])
    elif kind == "flipped":
        path.write_bytes(whole[:200] + bytes([whole[200] ^ 255]) + whole[201:])
    elif kind == "bomb":
        head = b"\x00\x00\x00\rIHDR"[4:] + (10**5).to_bytes(4) * 2 + b"\x08\x02\x00\x00\x00"
        path.write_bytes(whole[:8] + b"\x00\x00\x00\r" + head + zlib.crc32(head).to_bytes(4) + whole[33:])
    elif kind == "gif":
        memory = io.BytesIO()
        Image.new("RGB", (4, 4)).save(memory, "GIF")
        path.write_bytes(memory.getvalue())
    elif kind == "folder":
        path.mkdir()
    return path


@pytest.mark.parametrize("kind", ["text", "empty", "truncated", "flipped", "bomb", "gif", "folder", "missing"])
def test_damage_is_one_sentence_with_the_path(tmp_path: Path, kind: str) -> None:
    path = _damaged(tmp_path, kind)
    said = {"missing": "does not exist", "folder": r"cannot be opened \(Is a directory\)"}.get(
        kind, "cannot be decoded"
    )
    with pytest.raises(FileError, match=said) as caught:
        read_image(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("height", "width"), [(40, 90), (90, 40), (33, 33), (24, 300)])
def test_square_is_the_centre(height: int, width: int) -> None:
    image = np.zeros((height, width, 3), np.uint8)
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    image[top : top + side, left : left + side, 1] = 200  # green inside the centre, black outside
    square = fit_square(image, 16)
    assert square.shape == (16, 16, 3)
    assert (square[2:-2, 2:-2] == (0, 200, 0)).all()


def test_square_keeps_left_and_right_apart() -> None:
    image = np.zeros((20, 40, 3), np.uint8)
    image[:, 20:] = 255
    square = fit_square(image, 10)
    assert square[:, :4].max() == 0
    assert square[:, 6:].min() == 255


def test_square_of_that_size_is_untouched(rng: np.random.Generator) -> None:
    image = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
    square = fit_square(image, 8)
    np.testing.assert_array_equal(square, image)
    assert not np.shares_memory(square, image)


def test_float_and_back(rng: np.random.Generator) -> None:
    images = rng.integers(0, 256, (2, 6, 5, 3), dtype=np.uint8)
    images[0, 0, 0] = (0, 127, 255)
    floats = to_float(images)
    assert floats.shape == (2, 3, 6, 5)
    assert floats.dtype == np.float32
    assert floats[0, 2, 0, 0] == 1.0
    np.testing.assert_allclose(floats[0, 1, 0, 0], 127 / 255, rtol=1e-6)
    np.testing.assert_array_equal(to_uint8(floats), images)


def test_to_uint8_clips_and_rounds() -> None:
    images = np.full((2, 3, 1, 1), 0.5)
    images[1, :, 0, 0] = (-3.0, 1.7, 0.9999)
    np.testing.assert_array_equal(to_uint8(images)[:, 0, 0], [[128, 128, 128], [0, 255, 255]])


def test_wrong_arrays_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"\(4, 4\)"):
        png_bytes(np.zeros((4, 4), np.uint8))
    with pytest.raises(ShapeError, match="float64"):
        fit_square(np.zeros((4, 4, 3)), 2)  # type: ignore[arg-type]
    with pytest.raises(ShapeError, match=r"\(2, 3, 4, 4\)"):
        to_float(np.zeros((2, 3, 4, 4), np.uint8))
    with pytest.raises(ShapeError, match="uint8"):
        to_uint8(np.zeros((1, 3, 4, 4), np.uint8))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="NaN"):
        to_uint8(np.full((1, 3, 2, 2), np.nan, np.float32))
    with pytest.raises(InputError, match="at least 1"):
        fit_square(np.zeros((4, 4, 3), np.uint8), 0)


def test_pictures_of_a_folder(tmp_path: Path) -> None:
    for name in ("b.PNG", "a.jpeg", "c.jpg", ".hidden.png", "notes.txt"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "folder.png").mkdir()
    assert [path.name for path in list_pictures(tmp_path)] == ["a.jpeg", "b.PNG", "c.jpg"]


@pytest.mark.parametrize("kind", ["webp", "tiff", "TIF", "bmp"])
def test_other_common_pictures_are_read_and_not_dropped(tmp_path: Path, kind: str, colours: np.ndarray) -> None:
    path = tmp_path / f"b.{kind}"
    options = {"lossless": True} if kind == "webp" else {}
    Image.fromarray(colours).save(path, **options)
    write_png(tmp_path / "a.png", colours)
    assert [path.name for path in list_pictures(tmp_path)] == ["a.png", path.name]
    np.testing.assert_array_equal(read_image(path), colours)


@pytest.mark.parametrize("name", ["b.gif", "b.HEIC", "b.svg", "b.avif"])
def test_a_picture_that_is_not_read_is_named(tmp_path: Path, name: str, colours: np.ndarray) -> None:
    """Dropped without a word, it would move all pictures behind it to other trials."""
    for other in ("a.png", "c.png"):
        write_png(tmp_path / other, colours)
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(FileError, match=f"holds {name}, a kind of picture that is not read: save it as a PNG"):
        list_pictures(tmp_path)


@pytest.mark.parametrize("kind", ["tiff", "webp", "png"])
def test_a_file_of_several_pictures_is_refused(tmp_path: Path, kind: str, colours: np.ndarray) -> None:
    first = Image.fromarray(colours)
    first.save(tmp_path / f"a.{kind}", save_all=True, append_images=[first.rotate(180), first.rotate(90, expand=False)])
    with pytest.raises(FileError, match="holds 3 pictures: save the intended one"):
        read_image(tmp_path / f"a.{kind}")


def test_pixels_without_a_white_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4)).save(tmp_path / "a.tiff")
    with pytest.raises(FileError, match="floating-point pixels"):
        read_image(tmp_path / "a.tiff")


def test_a_picture_that_may_not_be_opened_is_not_told_as_damage(
    tmp_path: Path, colours: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_png(tmp_path / "a.png", colours)

    def forbidden(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", forbidden)
    with pytest.raises(FileError, match=r"cannot be opened \(Permission denied\): .*your permissions"):
        read_image(tmp_path / "a.png")


def test_pictures_that_lose_their_edges_are_named() -> None:
    pictures = [
        (f"{index}.png", np.zeros((*shape, 3), np.uint8))
        for index, shape in enumerate([(4, 9), (9, 4), (9, 9), (3, 5), (5, 3)])
    ]
    assert cut_by_squares(pictures[2:3]) is None
    assert cut_by_squares(pictures[:1]) == "0.png (9 x 4 px) is not square: the middle is shown, its edges are cut off"
    assert cut_by_squares(iter(pictures)) == (
        "0.png (9 x 4 px), 1.png (4 x 9 px), 3.png (5 x 3 px) and 1 more are not square: "
        "the middle is shown, their edges are cut off"
    )


def test_numbered_pictures_come_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for number in range(12):
        (tmp_path / f"drawing {number}.png").write_bytes(b"")
    assert [path.stem for path in list_pictures(tmp_path)] == [f"drawing {number}" for number in range(12)]


def test_a_camera_s_picture_of_several_frames_is_its_first(tmp_path: Path, colours: np.ndarray) -> None:
    """JPEG with more frames behind (MPO) under the name of a JPEG, as phones write them."""
    first = Image.fromarray(colours)
    first.save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[first.rotate(90)], quality=95)
    first.save(tmp_path / "b.jpg", "JPEG", quality=95)
    assert (read_image(tmp_path / "a.jpg") == read_image(tmp_path / "b.jpg")).all()


def test_what_is_no_picture_is_said_in_words(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no picture")
    with pytest.raises(FileError, match="cannot identify"):
        read_image(tmp_path / "a.png")


def test_folder_without_pictures(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="holds no"):
        list_pictures(tmp_path)
    with pytest.raises(FileError, match="cannot be read"):
        list_pictures(tmp_path / "nowhere")
