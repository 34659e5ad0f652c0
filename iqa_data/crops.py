"""Score images by crops: choose the places, compute a network's outputs for each crop, and make quality maps."""
import math
import zlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor

from iqa_runtime.errors import UserError, pick
from iqa_runtime.options import Options

Places = list[tuple[int, int]]  # (top, left) of each crop, in pixels
MOST = 10_000                   # largest number of crops of an image
AT_ONCE = 100                   # crops of an image in one batch of the network
CELL = 32                       # side of a cell of a map, in pixels


# Places

def grid_crops(h: int, w: int, side: int | tuple[int, int], n: int) -> Places:
    """Return the n places of pyiqa's grid, row by row, in an image of h x w pixels.

    The step is (h - side) // sqrt(n), so that the last crops do not reach the lower and right edges, unlike those of
    `even_crops`.

    >>> grid_crops(384, 512, 224, 25)[:6]
    [(0, 0), (0, 57), (0, 114), (0, 171), (0, 228), (32, 0)]

    Args:
        h: height of the image.
        w: width of the image.
        side: side of the crops, or their (h, w).
        n: number of crops, a square number.
    """
    height, width = _pair(side)
    rows = math.isqrt(n)
    if rows * rows != n:
        raise UserError(f'--test_crops {n}: --crop_places toolbox needs a square number, as 25')
    return [(i * ((h - height) // rows), j * ((w - width) // rows)) for i in range(rows) for j in range(rows)]


def even_crops(h: int, w: int, side: int | tuple[int, int], n: int) -> Places:
    """Return n places, row by row, of a grid that reaches all edges; a single crop is in the middle.

    The grid is as square as n allows, with more places along the side that has more room.

    >>> even_crops(384, 512, 224, 6)
    [(0, 0), (0, 144), (0, 288), (160, 0), (160, 144), (160, 288)]
    """
    height, width = _pair(side)
    fewer = next(rows for rows in range(math.isqrt(n), 0, -1) if n % rows == 0)
    rows, columns = (fewer, n // fewer) if h - height <= w - width else (n // fewer, fewer)
    return [(top, left) for top in _spread(h - height, rows) for left in _spread(w - width, columns)]


def random_crops(h: int, w: int, side: int | tuple[int, int], n: int, seed: int) -> Places:
    """Return n random places, the same for the same seed."""
    height, width = _pair(side)
    rng = np.random.RandomState(seed)
    return [(int(rng.randint(h - height + 1)), int(rng.randint(w - width + 1))) for _ in range(n)]


def content_seed(image: Tensor) -> int:
    """Return a seed computed from the 8-bit pixels of an image (3, H, W), uint8 or float in 0..1."""
    if image.is_floating_point():
        image = (image.detach() * 255).round().clamp(0, 255).byte()
    return zlib.crc32(image.permute(1, 2, 0).contiguous().cpu().numpy())


def _pair(side: int | tuple[int, int]) -> tuple[int, int]:
    return (side, side) if isinstance(side, int) else tuple(side)


def _spread(room: int, count: int) -> list[int]:
    """Return `count` rounded positions from 0 to `room` inclusive."""
    return [round(room / 2)] if count == 1 else [round(i * room / (count - 1)) for i in range(count)]


# name -> (image (3, H, W), (h, w) of the crops, their number) -> their places
PLACES: dict[str, Callable[[Tensor, tuple[int, int], int], Places]] = {
    'grid': lambda image, size, n: even_crops(*image.shape[-2:], size, n),
    'toolbox': lambda image, size, n: grid_crops(*image.shape[-2:], size, n),
    'random': lambda image, size, n: random_crops(*image.shape[-2:], size, n, content_seed(image)),
}


# Scores by crops

@dataclass(frozen=True)
class Crops:
    """The crops by which an image is scored: called with a network and images, it returns the outputs of each crop.

    Attributes:
        count: number of crops of an image.
        size: (h, w) of the crops.
        places: a name in PLACES: rule for the places of the crops. Random places are determined by the image's content,
            so that an image always gets the same score.
    """

    count: int
    size: tuple[int, int]
    places: str = 'grid'

    def __post_init__(self):
        pick(PLACES, self.places, 'places of crops')
        if not 1 <= self.count <= MOST:
            raise UserError(f'{self.count} crops of an image: expected 1 to {MOST}')
        object.__setattr__(self, 'size', _pair(self.size))
        self.of(torch.empty(3, *self.size, dtype=torch.uint8))  # raise the error for an invalid number of crops here

    @property
    def fixed(self) -> bool:
        """Return whether the places depend only on the size of an image."""
        return self.places != 'random'

    def stored(self) -> dict:
        """Return the fields as a checkpoint stores them."""
        return asdict(self)

    def of(self, image: Tensor) -> Places:
        """Return the places in an image (3, H, W); UserError if it is smaller than a crop."""
        self.check([image.shape[-2:]])
        return PLACES[self.places](image, self.size, self.count)

    def check_side(self, side: int | None) -> None:
        """Raise UserError if a network that needs images of side x side does not take these crops."""
        if side and self.size != (side, side):
            height, width = self.size
            raise UserError(f'--test_crops: crops of {height}x{width} (h x w) for a network of {side}x{side}: '
                            f'give --crop_size_h {side} --crop_size_w {side}')

    def check(self, sizes: Sequence[tuple[int, int]]) -> None:
        """Raise UserError if images of these (h, w) are smaller than a crop."""
        height, width = self.size
        small = [size for size in sizes if size[0] < height or size[1] < width]
        if small:
            h, w = min(small)
            raise UserError(f'{w}x{h} pixels have no crops of {width}x{height}: --enlarge enlarges small images, '
                            '--crop_size_h and --crop_size_w set the size of the crops')

    def __call__(self, network: Callable[..., Sequence[Tensor]], *images: Tensor) -> list[Tensor]:
        """Return the outputs of each head for each crop, (N, count).

        The crops of one image are one batch of the network, of at most AT_ONCE crops, and only they are in memory.

        Args:
            network: crops (n, 3, h, w) of each image -> heads (n, 1).
            images: one or two (reference, distorted), each (N, 3, H, W); the last determines the places of random
                crops.
        """
        each = [self._outputs(network, one, self.of(one[-1])) for one in zip(*images, strict=True)]
        return [torch.stack(head) for head in zip(*each, strict=True)]

    def _outputs(self, network: Callable[..., Sequence[Tensor]], images: Sequence[Tensor],
                 places: Places) -> list[Tensor]:
        """Return the outputs (count,) of each head for crops of one image, or pair, (3, H, W) each."""
        batches = [places[i:i + AT_ONCE] for i in range(0, len(places), AT_ONCE)]
        outputs = [network(*(torch.stack([self._cut(image, place) for place in batch]) for image in images))
                   for batch in batches]
        return [torch.cat(parts)[:, 0] for parts in zip(*outputs, strict=True)]

    def _cut(self, image: Tensor, place: tuple[int, int]) -> Tensor:
        (top, left), (height, width) = place, self.size
        return image[..., top:top + height, left:left + width]

    def stacked(self, images: Tensor) -> Tensor:
        """Return the crops of images (N, 3, H, W) as one batch, (N count, 3, h, w), image by image.

        All images are cut at the places of the first (see `fixed`).
        """
        crops = [self._cut(images, place) for place in self.of(images[0])]
        return torch.stack(crops, 1).flatten(0, 1)

    def local(self, network: Callable[..., Sequence[Tensor]], images: Tensor, head: int = -1) -> Tensor:
        """Return maps (N, H // 32, W // 32) of the raw scores of a head.

        The score of a cell is the mean over the crops that cover it, weighted by the covered share of the cell. The
        crops are on a grid that reaches all edges, in steps of at most half a crop.
        """
        self.check([images.shape[-2:]])
        starts = [_spread(room, 1 + math.ceil(2 * room / side)) for room, side in
                  ((whole - side, side) for whole, side in zip(images.shape[-2:], self.size, strict=True))]
        places = [(top, left) for top in starts[0] for left in starts[1]]
        covered = [_covered(tops, side, whole) for tops, side, whole in
                   zip(starts, self.size, images.shape[-2:], strict=True)]
        maps = []
        for image in images:
            scores = self._outputs(network, [image], places)[head].view(*map(len, starts))
            down, across = (one.to(scores) for one in covered)
            maps.append(down.T @ scores @ across / (down.sum(0)[:, None] * across.sum(0)))
        return torch.stack(maps)


def _covered(starts: Sequence[int], side: int, whole: int) -> Tensor:
    """Return the overlap of each crop with each cell along one side of an image, in pixels, (crops, cells)."""
    first = torch.tensor(starts, dtype=torch.float64)[:, None]
    edges = torch.linspace(0, whole, max(1, whole // CELL) + 1, dtype=torch.float64)
    return (torch.minimum(first + side, edges[1:]) - torch.maximum(first, edges[:-1])).clamp_min(0)


def crops_of(args: Options) -> Crops | None:
    """Return the crops by which images are scored, from the options; None: whole images are scored."""
    if args.test_crops:
        return Crops(args.test_crops, (args.crop_size_h, args.crop_size_w), args.crop_places)
    if 'crop_places' in args.given:
        raise UserError(f'--crop_places {args.crop_places} needs --test_crops, the number of crops')
    return None
