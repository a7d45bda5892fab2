"""A keyframe from a file: PNG, JPEG, WebP, TIFF or EXR in, 8-bit sRGB out.

What happens on the way, in this order: turned as EXIF says, 16 bits brought down to 8, an embedded colour profile
converted to sRGB, transparency composited on mid-grey. Grey, because drawn keyframes are often black ink on nothing and
rendered ones often highlights on nothing: on black or white one of them would vanish.
"""

from __future__ import annotations

import contextlib
import io
import stat
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from attrs import field, frozen
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile
from sfwire import limits

from . import exr
from .files import MediaError, Picture

FORMATS = ("PNG", "JPEG", "WEBP", "TIFF")
"""Decoders that Pillow may choose from. What phones save with a second picture inside (MPO) is a JPEG to it."""
MAX_SOURCE_PIXELS = 8192 * 8192
"""An 8K square render and every camera in common use; 201 MB as RGB8. A clip is smaller: see `sfwire.limits`."""
MAX_FILE_BYTES = 1024**3
"""WebP is read as a whole before anything is decoded. An EXR of MAX_SOURCE_PIXELS in half floats is 400 MB."""
BACKGROUND = 128
"""sRGB value of the grey behind transparency."""
_KINDS = "PNG, JPEG, WebP, TIFF or EXR"


@frozen(eq=False)
class Loaded:
    """A picture as the engines take it, and what its owner should know about how it was read."""

    image: Picture
    notes: tuple[str, ...] = field(default=())


def read_picture(path: Path) -> Loaded:
    """Read one keyframe, [H, W, 3] uint8 sRGB. Raises MediaError; size and kind are checked before decoding."""
    check_file(path)
    if exr.is_exr(path):
        with _decoding(path):
            linear, notes = exr.read_linear(path, MAX_SOURCE_PIXELS, _linear_from_srgb(np.float32(BACKGROUND / 255)))
            image = _srgb8_from_linear(linear)
    else:
        image, notes = _read_still(path)
    height, width = image.shape[:2]
    if min(width, height) < limits.MIN_SIDE_PX:
        raise MediaError(
            f"{path}: is {width}x{height}; a keyframe needs at least {limits.MIN_SIDE_PX} pixels on each side"
        )
    return Loaded(image, tuple(f"{path}: {note}" for note in notes))


def check_file(path: Path) -> None:
    """Raises MediaError where there is no file that could be read: a pipe or a device would never end."""
    try:
        found = path.stat()
        if stat.S_ISDIR(found.st_mode):
            raise MediaError(f"{path}: is a folder; name one picture in it")
        if not stat.S_ISREG(found.st_mode):  # reading a pipe or a device could go on for ever
            raise MediaError(f"{path}: is not a file; name a {_KINDS} picture")
        if found.st_size == 0:
            raise MediaError(f"{path}: is empty; export it again")
        if found.st_size > MAX_FILE_BYTES:
            raise MediaError(
                f"{path}: is {found.st_size} bytes, at most {MAX_FILE_BYTES} are read; scale it down first"
            )
        path.open("rb").close()
    except MediaError:
        raise
    except FileNotFoundError:
        raise MediaError(f"{path}: there is no such file; check the name") from None
    except PermissionError:
        raise MediaError(f"{path}: may not be read; change its permissions or copy it elsewhere") from None
    except OSError as error:
        raise MediaError(f"{path}: cannot be read ({(error.strerror or str(error)).lower()}); check the name") from None
    except ValueError:  # a zero in it, or half a character
        raise MediaError(f"{str(path)!a}: is no name of a file; check the name") from None


@contextlib.contextmanager
def _decoding(path: Path) -> Iterator[None]:
    """Everything that a decoder raises about a damaged file becomes one MediaError.

    This is a boundary: what comes out of decoders of untrusted bytes is not a documented set (OSError, SyntaxError,
    struct.error, zlib.error, KeyError... have all been seen), so every Exception is caught.
    """
    try:
        yield
    except MediaError as error:
        raise MediaError(f"{path}: {error}") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise MediaError(f"{path}: {_too_large()}") from None
    except UnidentifiedImageError:
        raise MediaError(f"{path}: is not a {_KINDS} picture, or a damaged one; export it again as PNG") from None
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise MediaError(f"{path}: is truncated or damaged ({reason}); export it again") from error


def _too_large() -> str:
    return f"has more than {MAX_SOURCE_PIXELS // 10**6} megapixels; scale it down first"


def _read_still(path: Path) -> tuple[Picture, list[str]]:
    with _decoding(path), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # odd metadata; what matters is raised
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with Image.open(path, formats=FORMATS) as picture:  # reads the header alone
            if picture.width * picture.height > MAX_SOURCE_PIXELS:
                raise MediaError(f"{picture.width}x{picture.height} {_too_large()}")
            if isinstance(picture, PngImageFile | WebPImageFile | TiffImageFile) and picture.n_frames > 1:
                raise MediaError(f"holds {picture.n_frames} pictures; export the one that is the keyframe as PNG")
            return _rgb8_from_pillow(ImageOps.exif_transpose(picture))


def _rgb8_from_pillow(picture: Image.Image) -> tuple[Picture, list[str]]:
    if picture.mode in ("I", "F"):
        raise MediaError("has 32-bit samples; save it as EXR, or with 8 or 16 bits")
    notes: list[str] = []
    profile = picture.info.get("icc_profile")
    alpha: NDArray[np.uint8] | None = None
    if picture.mode.startswith("I;16"):
        picture = Image.fromarray(np.round(np.asarray(picture) / 257).astype(np.uint8))
    elif picture.has_transparency_data:
        picture = picture.convert("RGBA")
        alpha = np.array(picture.getchannel("A"))
    colours = picture if picture.mode in ("L", "CMYK", "LAB") else picture.convert("RGB")
    if profile:
        colours = _srgb_from_profile(colours, profile, notes)
    image = np.array(colours.convert("RGB"))
    if alpha is not None and alpha.min() < 255:
        notes.append("its transparency was filled with grey; flatten it yourself for another background")
        opacity = alpha[..., None].astype(np.float32) / 255
        image = np.round(image * opacity + BACKGROUND * (1 - opacity)).astype(np.uint8)
    return image, notes


def _srgb_from_profile(picture: Image.Image, profile: bytes, notes: list[str]) -> Image.Image:
    """`picture` with its colours brought from `profile` to sRGB; unchanged where the profile is sRGB or unusable."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if "sRGB" in ImageCms.getProfileDescription(source):
            return picture  # a conversion to itself would still round
        converted = ImageCms.profileToProfile(picture, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError):
        notes.append("its colour profile cannot be used and was ignored; export it in sRGB if colours look wrong")
        return picture
    assert converted is not None  # None is the answer to inPlace=True alone
    return converted


def _linear_from_srgb(value: np.float32) -> float:
    """IEC 61966-2-1, 0..1 to 0..1."""
    return float(value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4)


def _srgb8_from_linear(linear: NDArray[np.float32]) -> Picture:
    """IEC 61966-2-1; what is brighter than 1 is clipped, as a sequencer with the view transform Standard shows it."""
    linear = np.clip(np.nan_to_num(linear, nan=0.0, posinf=1.0, neginf=0.0), 0.0, 1.0)
    encoded = np.where(linear <= 0.0031308, linear * 12.92, 1.055 * np.maximum(linear, 1e-9) ** (1 / 2.4) - 0.055)
    return np.round(encoded * 255).astype(np.uint8)
