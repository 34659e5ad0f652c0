"""Scale the lightness of 8-bit images in CIE Lab, byte for byte as OpenCV's 8-bit conversion, as in ASNA's training.

Both directions compute with whole numbers: linear light with 3 fractional bits, the curve f of Lab with 15, and in the
inverse Y and f(Y) with 14. The standard's formulas are those of sRGB (IEC 61966-2-1) and CIE 1976 Lab under D65.
"""
from functools import cache

import numpy as np

WHITE = np.array([.950456, 1, 1.088754])  # D65
TO_XYZ = np.array([[.412453, .357580, .180423], [.212671, .715160, .072169], [.019334, .119193, .950227]])
FROM_XYZ = np.array([[3.240479, -1.53715, -.498535], [-.969256, 1.875991, .041556], [.055648, -.204043, 1.057311]])
LIGHT, CURVE, BACK, MATRIX = 3, 15, 14, 12  # fractional bits: light, f, Y and f of the inverse, matrices
STEPS = 1 << 12                             # entries of the table from light to sRGB


def scale_lightness(image: np.ndarray, factor: float) -> np.ndarray:
    """Return uint8 RGB (H, W, 3) with L of 8-bit Lab replaced by floor(clip(factor L, 0, 255)); a and b are kept.

    A factor of 1 is not the identity: 8-bit Lab has fewer colours than RGB.
    """
    lightness, a, b = to_lab(image)
    scaled = np.floor(np.clip(factor * np.arange(256), 0, 255)).astype(np.int32)
    return lab_to_rgb(scaled[lightness], a, b)


def to_lab(image: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Convert uint8 RGB (H, W, 3) to rounded 255/100 L, a + 128, b + 128, each (H, W) int32 in 0..255."""
    light, curve = _light_of_srgb(), _f_of_light()
    matrix = np.rint((1 << MATRIX) * TO_XYZ / WHITE[:, None]).astype(np.int32)
    x, y, z = (curve[_rounded(channel, MATRIX)] for channel in _product(matrix, np.moveaxis(light[image], -1, 0)))
    lightness = _rounded(296 * y - 1336935, CURVE)  # 2.55 (116 f - 16), of whole numbers: 1336935 / 2^15 = 2.55 * 16
    a, b = (_rounded(factor * difference + (128 << CURVE), CURVE)
            for factor, difference in ((500, x - y), (200, y - z)))
    return tuple(channel.clip(0, 255) for channel in (lightness, a, b))


def lab_to_rgb(lightness: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Convert 8-bit Lab, as `to_lab` returns it, to uint8 RGB (H, W, 3)."""
    y_of, f_of = _y_and_f_of_lightness()
    f = f_of[lightness]
    fx = f + ((a * 268435 + 128 >> 13) - (128 << BACK) // 500)      # 268435 / 2^13 = 2^14 / 500
    fz = f - ((b * 41943 + 16 >> 9) - (128 << BACK) // 200 + 1)     # 41943 / 2^9 = 2^14 / 200
    matrix = np.rint((1 << MATRIX) * FROM_XYZ * WHITE).astype(np.int64)
    rgb = _product(matrix, (_cubed(fx), y_of[lightness], _cubed(fz)))
    light = [_rounded(channel, MATRIX + BACK - 12).clip(0, STEPS - 1) for channel in rgb]
    return np.stack([_srgb_of_light()[channel] for channel in light], -1)


def _product(matrix: np.ndarray, channels) -> list[np.ndarray]:
    """Multiply a 3x3 matrix by three channels (H, W); numpy's own product of whole numbers is slower."""
    return [sum(weight * channel for weight, channel in zip(row, channels, strict=True)) for row in matrix]


def _rounded(values: np.ndarray, bits: int) -> np.ndarray:
    """Round values with `bits` fractional bits to whole numbers, halves up."""
    return values + (1 << bits - 1) >> bits


def _cubed(f: np.ndarray) -> np.ndarray:
    """Return the inverse of Lab's f, both with BACK fractional bits; truncated, as is the line near 0."""
    one = 1 << BACK
    line = np.trunc(f * (108 / 841)).astype(np.int64) - 290  # 290 / 2^14: 16/116 of 108/841
    cube = f.astype(np.int64) ** 2 // one * f // one
    return np.where(f <= round(6 / 29 * one), line, cube)


@cache
def _light_of_srgb() -> np.ndarray:
    srgb = np.arange(256) / 255
    light = np.where(srgb <= .04045, srgb / 12.92, ((srgb + .055) / 1.055) ** 2.4)
    return np.rint((255 << LIGHT) * light).astype(np.int32)


@cache
def _srgb_of_light() -> np.ndarray:
    light = np.arange(STEPS) / STEPS
    srgb = np.where(light <= .0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - .055)
    return np.rint(255 * srgb).astype(np.uint8)


@cache
def _f_of_light() -> np.ndarray:
    light = np.arange(256 * 3 // 2 << LIGHT) / (255 << LIGHT)
    f = np.where(light < (6 / 29) ** 3, light * 841 / 108 + 16 / 116, np.cbrt(light))
    return np.rint((1 << CURVE) * f.astype(np.float32)).astype(np.int32)  # float32 decides one of the halves


@cache
def _y_and_f_of_lightness() -> tuple[np.ndarray, np.ndarray]:
    lightness = np.arange(256) * 100 / 255
    f = (lightness + 16) / 116
    y = np.where(lightness <= 8, lightness * (3 / 29) ** 3, f ** 3)
    return tuple(np.rint((1 << BACK) * values).astype(np.int64) for values in (y, f))
