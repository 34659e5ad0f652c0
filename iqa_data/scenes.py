"""Photographs and drawn scenes, from which the demo data set is made (see iqa_data/demo.py)."""
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.random import RandomState
from PIL import Image, ImageDraw

from iqa_data.images import ImageError, opened
from iqa_runtime.errors import UserError

GRAIN = (20., 30.)  # standard deviation of the texture of drawn scenes, in grey levels
PHOTOGRAPHS = (
    'astronaut.png', 'brick.png', 'camera.png', 'chelsea.png', 'coffee.png', 'coins.png', 'grass.png', 'gravel.png',
    'ihc.png', 'motorcycle_left.png', 'page.png', 'retina.jpg', 'rocket.jpg',
)


# Scenes: a generator, and the size (w, h) of the canvas -> an RGB image

Size = tuple[int, int]
Scene = Callable[[RandomState, Size], Image.Image]


def photograph(name: str) -> Image.Image:
    """Read one of the photographs that ship inside scikit-image, without the network."""
    import skimage.data
    path = Path(skimage.data.__file__).parent / name
    try:
        with opened(path) as image:
            return image.convert('RGB')
    except ImageError as error:
        raise UserError(f'cannot read {path}: {error.reason}; expected it in the installed scikit-image') from error


def _colour(rng: RandomState, low: int = 0, high: int = 256) -> tuple[int, ...]:
    """Draw a colour near grey, as of most surfaces: a lightness in [low, high), with noise on each channel."""
    return tuple(np.clip(rng.randint(low, high) + rng.normal(0, 35, 3), 0, 255).astype(int).tolist())


def _sky(rng: RandomState, canvas: Size) -> Image.Image:
    """Return a canvas with a gradient between two colours from top to bottom."""
    top, bottom = np.array([_colour(rng, 60), _colour(rng, 60)])
    ramp = np.linspace(0, 1, canvas[1])[:, None, None]
    return Image.fromarray(np.broadcast_to(top + (bottom - top) * ramp, (canvas[1], canvas[0], 3)).astype(np.uint8))


def _grain(image: Image.Image, rng: RandomState) -> Image.Image:
    """Add a texture to a scene: noise whose amplitude falls as 1 / frequency."""
    width, height = image.size
    fy, fx = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)
    spectrum = np.fft.rfft2(rng.normal(size=(height, width))) / np.maximum(np.hypot(fx, fy), 1 / width)
    texture = np.fft.irfft2(spectrum, (height, width))
    return as_image(np.asarray(image) + (rng.uniform(*GRAIN) * texture / texture.std())[:, :, None])


def as_image(values: np.ndarray) -> Image.Image:
    """Return grey levels (H, W, 3), rounded and clipped to 0..255, as an image."""
    return Image.fromarray(np.clip(np.rint(values), 0, 255).astype(np.uint8))


def leaves(rng: RandomState, canvas: Size) -> Image.Image:
    """Draw overlapping discs of many sizes: edges at every scale, as in natural images."""
    image = Image.new('RGB', canvas, _colour(rng))
    draw = ImageDraw.Draw(image)
    for _ in range(rng.randint(150, 400)):
        x, y, radius = rng.uniform(0, canvas[0]), rng.uniform(0, canvas[1]), 5 / math.sqrt(rng.uniform(.004, 1))
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=_colour(rng))
    return _grain(image, rng)


def city(rng: RandomState, canvas: Size) -> Image.Image:
    """Draw houses with windows in front of the sky."""
    image = _sky(rng, canvas)
    draw = ImageDraw.Draw(image)
    for row in range(3):
        for left in range(-20, canvas[0], rng.randint(40, 70)):
            width, top = rng.randint(30, 80), rng.randint(15 + 50 * row, 90 + 50 * row)
            draw.rectangle((left, top, left + width, canvas[1]), fill=_colour(rng, 20, 230))
            glass, pitch = _colour(rng), rng.randint(9, 18)
            for x in range(left + 4, left + width - pitch // 2, pitch):
                for y in range(top + 5, canvas[1], pitch):
                    draw.rectangle((x, y, x + pitch // 2, y + pitch // 2), fill=glass)
    return _grain(image, rng)


def hills(rng: RandomState, canvas: Size) -> Image.Image:
    """Draw ridges behind one another, with trees on them."""
    image = _sky(rng, canvas)
    draw = ImageDraw.Draw(image)
    for base in range(80, canvas[1] + 30, 30):
        steps = np.cumsum(rng.normal(0, 4, canvas[0]))
        ridge = base + steps - steps.mean()
        draw.polygon([(0, canvas[1]), *enumerate(ridge.tolist()), (canvas[0], canvas[1])], fill=_colour(rng, 20, 220))
        tree = _colour(rng, 0, 180)
        for x in rng.randint(0, canvas[0], rng.randint(10, 40)).tolist():
            foot, height = ridge[x] + rng.uniform(0, 40), rng.uniform(10, 36)
            draw.polygon([(x - height / 4, foot), (x, foot - height), (x + height / 4, foot)], fill=tree)
    return _grain(image, rng)


def mosaic(rng: RandomState, canvas: Size) -> Image.Image:
    """Draw tiles of flat colours, each the cells nearest to a random point, some of them striped."""
    y, x = np.mgrid[:canvas[1], :canvas[0]]
    points = rng.uniform(0, 1, (rng.randint(30, 90), 2)) * canvas
    tile, nearest = np.zeros(x.shape, int), np.full(x.shape, np.inf)
    for i, (px, py) in enumerate(points):
        distance = (x - px) ** 2 + (y - py) ** 2
        tile[distance < nearest] = i
        nearest = np.minimum(nearest, distance)
    colours = np.array([[_colour(rng) for _ in points] for _ in range(2)])
    angle, pitch = rng.uniform(0, math.pi, len(points))[tile], rng.uniform(6, 30, len(points))[tile]
    stripe = (np.floor((x * np.cos(angle) + y * np.sin(angle)) / pitch) % 2).astype(int)
    return _grain(as_image(colours[stripe, tile]), rng)


DRAWN: dict[str, Scene] = {'leaves': leaves, 'city': city, 'hills': hills, 'mosaic': mosaic}
