"""A keyframe from a file: PNG, JPEG, WebP, TIFF or EXR in, sRGB out, with the alpha and the depth that it has.

What happens on the way: turned as EXIF says, an embedded colour profile converted to sRGB, the light of an EXR brought
to sRGB as floats. Alpha that hides nothing is left out.
"""

from __future__ import annotations

import contextlib
import io
import stat
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import numpy as np
from attrs import field, frozen
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile
from sfwire import limits

from ..samples import Picture, from_linear, hides, unit
from . import exr
from .files import MediaError

FORMATS = ("PNG", "JPEG", "WEBP", "TIFF")
"""Decoders that Pillow may choose from. What phones save with a second picture inside (MPO) is a JPEG to it."""
MAX_SOURCE_PIXELS = 8192 * 8192
"""An 8K square render and every camera in common use; 201 MB as RGB8. A clip is smaller: see `sfwire.limits`."""
MAX_FILE_BYTES = 1024**3
"""WebP is read as a whole before anything is decoded. An EXR of MAX_SOURCE_PIXELS in half floats is 400 MB."""
_ORIENTATION = 274
"""Tag of EXIF."""
_DEEP_PNG, _DEEP_TIFF = 16, (16, 16, 16)
_KINDS = "PNG, JPEG, WebP, TIFF or EXR"


@frozen(eq=False)
class Loaded:
    """A picture, and what its owner should know about how it was read."""

    image: Picture
    notes: tuple[str, ...] = field(default=())


def read_picture(path: Path) -> Loaded:
    """Read one keyframe, [H, W, 3 or 4] sRGB. Raises MediaError; size and kind are checked before decoding."""
    check_file(path)
    if exr.is_exr(path):
        with _decoding(path):
            linear, notes = exr.read_linear(path, MAX_SOURCE_PIXELS)
            light = unit(linear)
            image = np.concatenate((from_linear(light[..., :3]), light[..., 3:]), axis=-1)
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
            if _is_deep(path, picture):
                return _deep(path, picture)
            return _from_pillow(ImageOps.exif_transpose(picture))


def _is_deep(path: Path, picture: Image.Image) -> bool:
    """Colours of 16 bits a sample, of which Pillow would read eight. A profile is applied to eight alone."""
    if picture.mode not in ("RGB", "RGBA") or "icc_profile" in picture.info:
        return False
    if isinstance(picture, TiffImageFile):
        return tuple(picture.tag_v2.get(258, ()))[:3] == _DEEP_TIFF
    with path.open("rb") as file:
        return isinstance(picture, PngImageFile) and file.read(25)[24] == _DEEP_PNG


def _deep(path: Path, picture: Image.Image) -> tuple[Picture, list[str]]:
    """By FFmpeg's decoders: [H, W, 3 or 4] uint16."""
    decoder = av.VideoCodecContext.create("png" if picture.format == "PNG" else "tiff", "r")
    packet = av.Packet(path.read_bytes())
    (frame,) = [*decoder.decode(packet), *decoder.decode(None)]
    image: Picture = frame.to_ndarray(format="rgba64le" if picture.mode == "RGBA" else "rgb48le")
    turned = _TURNS.get(picture.getexif().get(_ORIENTATION, 1))
    return _opaque_as_rgb(turned(image) if turned else image), []


_TURNS: dict[int, Callable[[Picture], Picture]] = {
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a),
}
"""What makes a picture upright, by what EXIF says of it."""


def _opaque_as_rgb(image: Picture) -> Picture:
    return np.ascontiguousarray(image if hides(image) else image[..., :3])


def _from_pillow(picture: Image.Image) -> tuple[Picture, list[str]]:
    if picture.mode in ("I", "F"):
        raise MediaError("has 32-bit samples; save it as EXR, or with 8 or 16 bits")
    notes: list[str] = []
    profile = picture.info.get("icc_profile")
    if picture.mode.startswith("I;16"):
        return np.repeat(np.asarray(picture).astype("<u2")[..., None], 3, axis=2), notes
    alpha: Picture | None = None
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        alpha = np.array(picture.getchannel("A"))
    colours = picture if picture.mode in ("L", "CMYK", "LAB") else picture.convert("RGB")
    if profile:
        colours = _srgb_from_profile(colours, profile, notes)
    image: Picture = np.array(colours.convert("RGB"))
    return image if alpha is None else _opaque_as_rgb(np.dstack((image, alpha))), notes


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
