"""Pictures on disk and in arrays: any common picture file in, RGB uint8 (H, W, 3); squares of one size out."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .errors import FileError, InputError, ShapeError
from .files import cannot_open, natural, write_bytes
from .output import is_leftover

if TYPE_CHECKING:
    from PIL.Image import Image

ImageU8 = NDArray[np.uint8]
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp")
FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP")
# Pictures that a person would expect to be read, and that are not: they are named and not passed over.
_OTHER_PICTURES = frozenset(
    (".gif", ".heic", ".heif", ".avif", ".jp2", ".jxl", ".jfif", ".svg", ".eps", ".pdf", ".ai", ".psd", ".xcf", ".kra")
    + (".ico", ".tga", ".ppm", ".pgm", ".exr", ".hdr", ".dng", ".cr2", ".nef", ".arw", ".raw")
)


def read_image(path: Path | str) -> ImageU8:
    """Read a picture as viewers show it: turned by its EXIF tag, transparency over white, three channels.

    Parameters
    ----------
    path : path of a PNG, JPEG, WebP, TIFF or BMP of any size and mode (grey, 16-bit grey, palette, alpha, CMYK).

    Returns
    -------
    array (H, W, 3) uint8, RGB.

    Raises
    ------
    FileError
        The file is missing, may not be opened, is not a picture, is truncated, is absurdly large, holds several
        pictures (but the first of a JPEG that a camera wrote is taken), or floating-point pixels, whose white nobody
        knows.
    """
    from PIL import Image, ImageOps

    path = Path(path)
    try:
        with open(path, "rb") as file, Image.open(file, formats=FORMATS) as opened:
            _refuse_what_cannot_be_shown(opened, path)
            opened.load()
            return np.asarray(_rgb(ImageOps.exif_transpose(opened)))
    except FileError:
        raise
    except FileNotFoundError:
        raise FileError(f"the picture {path} does not exist: check the path") from None
    except (PermissionError, IsADirectoryError) as error:
        raise cannot_open("the picture", path, error) from error
    except Exception as error:  # the decoders raise a dozen types for damaged files (SyntaxError, struct.error, …)
        raise FileError(
            f"the picture {path} cannot be decoded ({type(error).__name__}: {error}): "
            "save it again as a valid PNG or JPEG, or remove it"
        ) from error


def _refuse_what_cannot_be_shown(picture: Image, path: Path) -> None:
    n_frames = getattr(picture, "n_frames", 1)
    if n_frames > 1 and picture.format in ("TIFF", "WEBP", "PNG"):
        raise FileError(f"the picture {path} holds {n_frames} pictures: save the intended one as a PNG")
    if picture.mode == "F":
        raise FileError(f"the picture {path} has floating-point pixels, whose white level is unknown: save it as a PNG")


def _rgb(picture: Image) -> Image:
    """Three 8-bit channels; what shines through a transparent pixel is white."""
    from PIL import Image

    if picture.mode.startswith("I"):  # 16-bit grey: convert() would clip everything above 255 to white
        depth = np.asarray(picture).astype(np.float64) / 257.0
        return Image.fromarray(np.round(depth.clip(0, 255)).astype(np.uint8)).convert("RGB")
    if not picture.has_transparency_data:
        return picture.convert("RGB")
    rgba = picture.convert("RGBA")
    paper = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
    return Image.alpha_composite(paper, rgba).convert("RGB")


def fit_square(image: ImageU8, size: int) -> ImageU8:
    """Resize the shorter side to `size` (bicubic, antialiased) and cut the centre out.

    Parameters
    ----------
    image : array (H, W, 3) uint8.
    size : side of the square in px.

    Returns
    -------
    array (size, size, 3) uint8; the same pixels when the image has that size already.

    Raises
    ------
    ShapeError
        `image` is not (H, W, 3) uint8.
    InputError
        `size` is below 1.
    """
    from PIL import Image

    _check(image, 3, np.uint8, "an image", "(H, W, 3)")
    if size < 1:
        raise InputError(f"the side of the square is {size} px: give at least 1")
    height, width = image.shape[:2]
    if (height, width) == (size, size):
        return image.copy()
    short = min(height, width)
    left, top = (width - short) / 2, (height - short) / 2
    # Cutting inside resize() keeps the cut exact where the longer side scales to a fraction of a pixel.
    square = Image.fromarray(image).resize(
        (size, size), Image.Resampling.BICUBIC, box=(left, top, left + short, top + short)
    )
    return np.asarray(square)


def pixel_hash(image: ImageU8) -> str:
    """SHA-256 of decoded pixels (H, W, 3) uint8: of the text "(H, W, 3)" and then the bytes, row by row."""
    return hashlib.sha256(f"{image.shape}".encode() + image.tobytes()).hexdigest()


def write_png(path: Path | str, image: ImageU8) -> None:
    """Write (H, W, 3) uint8 as PNG: whole or not at all, the same bytes for the same pixels.

    Raises
    ------
    ShapeError
        `image` is not (H, W, 3) uint8.
    FileError
        The disk is full or the folder cannot be written.
    """
    write_bytes(Path(path), png_bytes(image))


def png_bytes(image: ImageU8) -> bytes:
    """The PNG file of (H, W, 3) uint8, without time stamps or text, so that equal pixels give equal bytes."""
    from PIL import Image

    _check(image, 3, np.uint8, "an image", "(H, W, 3)")
    memory = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(memory, format="PNG", compress_level=6)
    return memory.getvalue()


def to_float(images: ImageU8) -> NDArray[np.float32]:
    """(n, H, W, 3) uint8 to (n, 3, H, W) float32 in [0, 1]."""
    _check(images, 4, np.uint8, "images", "(n, H, W, 3)")
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2), dtype=np.float32) / np.float32(255)


def to_uint8(images: NDArray[np.floating[Any]]) -> ImageU8:
    """(n, 3, H, W) float in [0, 1] to (n, H, W, 3) uint8: clipped, rounded to the nearest level.

    Raises
    ------
    ShapeError
        `images` is not a four-dimensional float array with three channels.
    InputError
        A pixel is NaN: a cast would turn it into an arbitrary colour.
    """
    if images.ndim != 4 or images.shape[1] != 3 or images.dtype.kind != "f":
        raise ShapeError(f"images are {images.shape} {images.dtype}: give (n, 3, H, W) floats in [0, 1]")
    if np.isnan(images).any():
        raise InputError("images hold NaN: the model that made them overflowed, use a wider dtype")
    levels = np.round(np.clip(images, 0.0, 1.0).astype(np.float32) * np.float32(255)).astype(np.uint8)
    return np.ascontiguousarray(levels.transpose(0, 2, 3, 1))


def list_pictures(folder: Path | str) -> list[Path]:
    """The pictures directly in a folder, sorted by name (2 before 10).

    Hidden files, and files that are no pictures by their names, are left out.

    Raises
    ------
    FileError
        The folder is missing, cannot be read, holds no picture, or one of a kind that :func:`read_image` does not
        read: left out without a word, the ones behind it would be taken for other trials'.
    """
    folder = Path(folder)
    try:
        entries = sorted(folder.iterdir(), key=lambda path: natural(path.name))
    except OSError as error:
        raise FileError(f"the picture folder {folder} cannot be read ({error.strerror}): check the path") from error
    files = [p for p in entries if not p.name.startswith(".") and not is_leftover(p.name) and p.is_file()]
    other = [path.name for path in files if path.suffix.lower() in _OTHER_PICTURES]
    if other:
        more = f" and {len(other) - 1} more like it" if len(other) > 1 else ""
        raise FileError(
            f"{folder} holds {other[0]}{more}, a kind of picture that is not read: save it as a PNG, or move it "
            "elsewhere"
        )
    pictures = [path for path in files if path.suffix.lower() in SUFFIXES]
    if not pictures:
        raise FileError(f"{folder} holds no {', '.join(SUFFIXES)} file: put the pictures directly into it")
    return pictures


def cut_by_squares(pictures: Iterable[tuple[str, ImageU8]]) -> str | None:
    """One line that names the pictures of which :func:`fit_square` leaves something out; None where all are square.

    Parameters
    ----------
    pictures : name and array (H, W, 3) of each; looked at one by one, and not kept.
    """
    cut = [
        f"{name} ({image.shape[1]} x {image.shape[0]} px)" for name, image in pictures if len(set(image.shape[:2])) > 1
    ]
    if not cut:
        return None
    named = ", ".join(cut[:3]) + (f" and {len(cut) - 3} more" if len(cut) > 3 else "")
    whose, edges = ("is", "its edges are") if len(cut) == 1 else ("are", "their edges are")
    return f"{named} {whose} not square: the middle is shown, {edges} cut off"


def _check(array: NDArray[Any], rank: int, dtype: type, what: str, shape: str) -> None:
    if array.ndim != rank or array.shape[-1] != 3 or array.dtype != dtype or 0 in array.shape:
        raise ShapeError(f"{what} of shape {array.shape} {array.dtype} given: expected {shape} uint8")
