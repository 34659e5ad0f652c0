"""Open image files safely, explain why an image cannot be read, and convert any image to 8-bit RGB.

No other module opens images. Pillow supports more formats than FORMATS; the others call another program (EPS:
Ghostscript), need a library that Pillow lacks (WMF, GRIB, HDF5, BUFR), or contain no photographs.
"""
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from iqa_runtime.errors import UserError, first_line, one_line

FORMATS = ('PNG', 'JPEG', 'BMP', 'DIB', 'GIF', 'TIFF', 'WEBP', 'AVIF', 'JPEG2000', 'PPM', 'PSD', 'QOI', 'PCX', 'SGI',
           'SUN', 'TGA')  # and HEIF, if pillow-heif is installed. The first match is used; TGA matches almost any file
SUFFIXES = {'.jpg', '.jpeg', '.jpe', '.jfif', '.png', '.bmp', '.gif', '.tif', '.tiff', '.webp', '.avif', '.jp2',
            '.j2k', '.ppm', '.pgm', '.pbm', '.pnm', '.tga', '.qoi', '.heic', '.heif', '.hif'}  # taken from a folder
HEIF_BRANDS = {b'heic', b'heix', b'heim', b'heis', b'hevc', b'hevx', b'mif1', b'msf1'}
HEIF_HINT = 'a HEIF image, which needs another package: pip install pillow-heif'
SLACK = .05  # by which floats may exceed 0..1, since filters and restoration overshoot slightly
# common ranges of floats -> how to convert them to 0..1
SCALES = {(-1, 1): 'add 1 and divide by 2', (0, 255): 'divide by 255'}
DARK = 4096  # 16-bit samples that are all below it have at most 12 bits, or are nearly black


class ImageError(UserError):
    """An image that cannot be read; `reason` is one line without the file, the message also names the file."""

    def __init__(self, reason: str, file: str | Path = ''):
        self.reason = one_line(reason)
        super().__init__(f'{file}: {self.reason}' if file else self.reason)


@contextmanager
def opened(file: str | Path | BinaryIO) -> Iterator[Image.Image]:
    """Open an image whose content is in one of FORMATS.

    Every exception of its decoder, here or later within the context, becomes an ImageError; a UserError is re-raised.
    """
    path = '' if hasattr(file, 'read') else os.fspath(file)
    try:
        if path and not stat.S_ISREG(os.stat(path).st_mode):
            raise ImageError('not a file', path)  # a pipe or a device may never end
        with Image.open(file, formats=_formats()) as image:
            yield image
    except UserError:
        raise
    except Exception as error:  # Pillow's plugins raise almost anything on a broken file
        raise ImageError(_reason(error, file), path) from error


@cache
def _formats() -> tuple[str, ...]:
    """Return the formats in FORMATS that the installed Pillow reads."""
    with suppress(ImportError):
        import pillow_heif
        pillow_heif.register_heif_opener()
    Image.init()
    return tuple(name for name in (*FORMATS[:-1], 'HEIF', FORMATS[-1]) if name in Image.OPEN)


def _reason(error: Exception, file: str | Path | BinaryIO) -> str:
    """Describe a decoder's error in one line."""
    if isinstance(error, FileNotFoundError):
        return 'no such file'
    if isinstance(error, MemoryError):
        return 'not enough memory to decode it'
    if isinstance(error, UnidentifiedImageError):
        return HEIF_HINT if 'HEIF' not in _formats() and _is_heif(file) else 'cannot identify image file'
    system = error.strerror if isinstance(error, OSError) else None
    return system or first_line(error)


def _is_heif(file: str | Path | BinaryIO) -> bool:
    if not hasattr(file, 'read'):
        with open(file, 'rb') as stream:
            return _is_heif(stream)
    file.seek(0)
    start = file.read(12)
    return start[4:8] == b'ftyp' and start[8:] in HEIF_BRANDS


def shown_size(image: Image.Image) -> tuple[int, int]:
    """Return (h, w) of an opened image after its EXIF orientation, without decoding it."""
    turned = 5 <= image.getexif().get(ExifTags.Base.Orientation, 1) <= 8
    return image.size if turned and image.format != 'TIFF' else image.size[::-1]  # Pillow turns a TIFF's size itself


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert an image to 8-bit RGB, and apply its EXIF orientation.

    The range of the samples is read from the file, never guessed from their values:

    * 8 bits (grey, palette, RGB, CMYK, YCbCr, Lab) and 1 bit: Pillow's own conversion; an alpha channel is dropped.
    * 16-bit grey: 65535 is white; 12-bit grey of a TIFF: 4095 is white. 16 bits per channel: the upper 8 bits are used.
    * 32-bit integers are treated as 16-bit grey if all are in 0..65535.
    * Floats: 1 is white; they must be in 0..1, which they may exceed by SLACK, and are clipped to it.

    Everything else would become black or white, and raises ImageError: numbers outside these ranges, NaN, and 16-bit
    samples that are all below 4096 (in grey: but not all 0), as in files that store 12 bits in 16.
    """
    stored = _stored_mode(image)  # it is lost when the pixels are loaded
    image = ImageOps.exif_transpose(image)
    if image.mode == 'F':
        return _scaled(image, 1)
    if image.mode.startswith('I'):
        return _scaled(image, 4095 if stored.startswith('I;12') else 65535)
    if ';16' in stored and max(_largest(image)) < DARK >> 8:
        raise ImageError(_too_dark())
    return (image.convert('LA') if image.mode == 'La' else image).convert('RGB')


def _stored_mode(image: Image.Image) -> str:
    """Return Pillow's name of the format of the stored samples, such as RGB;16B; '' if it is unknown."""
    tile = getattr(image, 'tile', None)
    form = tile[0][3] if tile else ''
    form = form[0] if isinstance(form, tuple) and form else form
    return form if isinstance(form, str) else ''


def _scaled(image: Image.Image, white: int) -> Image.Image:
    """Convert grey samples of any type to RGB; 0 is black and `white` is white."""
    samples = np.asarray(image)
    low, high = float(samples.min()), float(samples.max())
    check_samples(low, high, white)
    if white == 65535 and 0 < high < DARK:
        raise ImageError(_too_dark())
    grey = (samples.astype(np.float32) / white).clip(0, 1) * 255
    return Image.fromarray(grey.round().astype(np.uint8)).convert('RGB')


def check_samples(low: float, high: float, white: int = 1) -> None:
    """Raise ImageError unless samples from `low` to `high` are in 0..white; floats (white 1) may exceed it by SLACK.

    NaN and infinity are outside.
    """
    slack = SLACK if white == 1 else 0
    if low >= -slack and high <= white + slack:
        return
    way = next((f'; {way}' for (least, most), way in SCALES.items() if least <= low and high <= most), '')
    raise ImageError(f'its samples are {low:g} to {high:g}, and the value of white is unknown: expected '
                     f'0 to {white}, or 8 bits{way}')


def _largest(image: Image.Image) -> list[int]:
    """Return the largest sample of each channel, except alpha."""
    return [image.getchannel(band).getextrema()[1] for band in image.getbands() if band != 'A']


def _too_dark() -> str:
    return f'its 16-bit samples are all below {DARK}: if they have 12 bits, expected a file that says so, or 8 bits'
