"""Make the demo data set: photographs and drawn scenes, degraded by a known amount, with scores that stand in for MOS.

    python data/make_demo.py [--out DIR]      ->  DIR/images/*.png, DIR/references/*.png, DIR/demo.csv
    python data/make_demo.py --out DIR --drawings 12 --tables    a smaller set, with DIR/train.csv and DIR/test.csv

Nothing is downloaded: the photographs are those that ship inside scikit-image. Every scene is cropped `PER_SCENE`
times; one crop stays pristine, each of the others is degraded by one of DISTORTIONS at some strength. The undegraded
crop is the image's reference, in a file of the same name. The scores are not human opinions: a true score is computed
from the strength of the degradation and from the SSIM to the pristine crop, and simulated raters rate it. The info file
(iqa_data/info.py) holds the mean and the standard deviation of their ratings.

Every call makes the same pixels and labels: each image has a random generator seeded by its position.
"""
import io
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.random import RandomState
from PIL import Image, ImageFilter, features
from tqdm import tqdm

from iqa_data.images import opened
from iqa_data.info import read_info, write_info
from iqa_data.scenes import DRAWN, PHOTOGRAPHS, Scene, Size, as_image, photograph
from iqa_data.splits import by_ratio
from iqa_runtime.errors import UserError, command
from iqa_runtime.files import replacing
from iqa_runtime.names import PARTS
from iqa_runtime.option_types import number
from iqa_runtime.options import Add, Command, group

OUT_DIR = Path('data', 'demo')
INFO = 'demo.csv'         # in that folder
SEED = 19920517
SIZE = (96, 72)          # width, height of every image
CANVAS = (320, 240)      # least width, height on which a scene is drawn before it is cropped
PER_SCENE = 8            # images of one scene, one of them pristine
DRAWINGS = 45            # scenes of each kind in DRAWN
RATIOS = (.6, .8)        # cumulative shares of the contents: train, train and val
RATERS = 20
RATER_NOISE = 10.        # standard deviation of one rater's ratings, on the scale 0..100
SCORES = (10., 90.)      # true score of the worst conceivable image and of a pristine one
SSIM_WEIGHT = .5         # share of SSIM in the true score; the strength has the rest

ImagePair = tuple[Image.Image, Image.Image]  # reference, image


# Distortions: (pristine image, strength in 0..1, generator) -> the degraded image

def _between(low: float, high: float, strength: float) -> float:
    """Interpolate geometrically between `low` (strength 0) and `high` (strength 1)."""
    return low * (high / low) ** strength


def _coded(image: Image.Image, **options) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, **options)
    with opened(buffer) as coded:
        return coded.convert('RGB')


def blur(image: Image.Image, strength: float, rng: RandomState) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(_between(.6, 4, strength)))


def noise(image: Image.Image, strength: float, rng: RandomState) -> Image.Image:
    pixels = np.asarray(image, np.float64)
    return as_image(pixels + rng.normal(0, _between(8, 80, strength), pixels.shape))


def jpeg(image: Image.Image, strength: float, rng: RandomState) -> Image.Image:
    return _coded(image, format='JPEG', quality=round(_between(14, 1, strength)))


def jpeg2000(image: Image.Image, strength: float, rng: RandomState) -> Image.Image:
    return _coded(image, format='JPEG2000', quality_layers=[_between(12, 150, strength)], irreversible=True)


def resample(image: Image.Image, strength: float, rng: RandomState) -> Image.Image:
    factor = _between(1.5, 8, strength)
    small = image.resize(tuple(round(side / factor) for side in image.size), Image.Resampling.BOX)
    return small.resize(image.size, Image.Resampling.BICUBIC)


def contrast(image: Image.Image, strength: float, rng: RandomState) -> Image.Image:
    pixels = np.asarray(image, np.float64)
    mean = pixels.mean()
    return as_image(mean + (pixels - mean) * _between(.75, .12, strength))


def quantisation(image: Image.Image, strength: float, rng: RandomState) -> Image.Image:
    levels = round(_between(12, 2, strength))
    return as_image(np.rint(np.asarray(image) / 255 * (levels - 1)) * (255 / (levels - 1)))


DISTORTIONS: dict[str, Callable[[Image.Image, float, RandomState], Image.Image]] = {
    'blur': blur, 'noise': noise, 'jpeg': jpeg, 'jpeg2000': jpeg2000, 'resample': resample, 'contrast': contrast,
    'quantisation': quantisation,
}


# Images, scores and splits

def scenes(drawings: int = DRAWINGS) -> list[tuple[str, str, Scene]]:
    """List (name, kind, function that makes the scene): every photograph, then `drawings` scenes of each drawn kind."""
    listed = [(name.partition('.')[0], 'photograph', lambda rng, canvas, name=name: photograph(name))
              for name in PHOTOGRAPHS]
    return listed + [(f'{kind}{i}', kind, draw) for kind, draw in DRAWN.items() for i in range(drawings)]


def crop(scene: Image.Image, rng: RandomState, size: Size = SIZE) -> Image.Image:
    """Crop a random part of a scene, .6 to 1 of the largest possible, resize it to `size` (w, h), perhaps mirrored."""
    scale = rng.uniform(.6, 1) * min(scene.width / size[0], scene.height / size[1])
    width, height = size[0] * scale, size[1] * scale
    left, top = rng.uniform(0, 1, 2) * (scene.width - width, scene.height - height)
    part = scene.resize(size, Image.Resampling.LANCZOS, box=(left, top, left + width, top + height))
    return part.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if rng.uniform() < .5 else part


def true_score(pristine: Image.Image, degraded: Image.Image, strength: float) -> float:
    """Compute the score of a degraded image: SCORES[1] if pristine, less for more strength and less SSIM."""
    from skimage.metrics import structural_similarity
    ssim = structural_similarity(np.asarray(pristine), np.asarray(degraded), channel_axis=2, data_range=255)
    damage = (1 - SSIM_WEIGHT) * strength + SSIM_WEIGHT * (1 - max(ssim, 0))
    return SCORES[1] - (SCORES[1] - SCORES[0]) * damage


def rate(score: float, rng: RandomState) -> tuple[float, float]:
    """Return the mean and standard deviation of RATERS simulated ratings, 0..100, of an image of this true score."""
    marks = np.clip(np.rint(rng.normal(score, RATER_NOISE, RATERS)), 0, 100)
    return float(marks.mean()), float(marks.std(ddof=1))


def order_of_contents(kinds: list[str]) -> np.ndarray:
    """Permute R contents so that every stretch of the permutation has about the same share of each kind.

    Args:
        kinds: the kind of each content, R of them.

    Returns: a permutation of 1..R.
    """
    rng = RandomState([SEED, 0])
    place = np.empty(len(kinds))
    for kind in dict.fromkeys(kinds):
        members = np.flatnonzero(np.array(kinds) == kind)
        place[members] = (rng.permutation(len(members)) + rng.uniform()) / len(members)
    return np.argsort(place, kind='stable') + 1


def parts_of(ref_ids: Sequence[int], order: np.ndarray) -> np.ndarray:
    """Return the part of each image, (N,) of PARTS: the contents in `order` are split by RATIOS."""
    part = np.empty(len(ref_ids), object)
    for name, rows in by_ratio(np.array(ref_ids), order, *RATIOS).items():
        part[rows] = name
    return part


def degraded_crops(ref: int, draw: Scene, per_scene: int,
                   size: Size) -> Iterator[tuple[str, float, ImagePair, float, float]]:
    """Yield (distortion, strength, (reference, image), mos, std) for each image of content `ref`, pristine first."""
    rng = RandomState([SEED, 0, ref])
    scene = draw(rng, (max(CANVAS[0], 2 * size[0]), max(CANVAS[1], 2 * size[1])))
    kinds = ['pristine', *np.resize(rng.permutation(list(DISTORTIONS)), per_scene - 1).tolist()]
    strengths = [0., *((rng.permutation(per_scene - 1) + rng.uniform(size=per_scene - 1)) / (per_scene - 1)).tolist()]
    for i, (kind, strength) in enumerate(zip(kinds, strengths, strict=True)):
        rng = RandomState([SEED, 1, ref, i])
        pristine = crop(scene, rng, size)
        image = DISTORTIONS[kind](pristine, strength, rng) if kind in DISTORTIONS else pristine
        yield kind, strength, (pristine, image), *rate(true_score(pristine, image, strength), rng)


def make_demo(out_dir: str | Path = OUT_DIR, per_scene: int = PER_SCENE, drawings: int = DRAWINGS,
              size: Size = SIZE) -> Path:
    """Write the demo data set: images, references, and last demo.csv, whose presence marks a complete set.

    Args:
        out_dir: the folder; an older demo data set in it is replaced.
        per_scene: images of each scene, at least 2.
        drawings: scenes of each drawn kind.
        size: width and height of the images.

    Returns the path of the info file. Raises UserError if a file cannot be written, or scikit-image's photographs or
    Pillow's JPEG 2000 codec are missing.
    """
    if not features.check('jpg_2000'):
        raise UserError('this Pillow lacks JPEG 2000; expected one built with OpenJPEG, as the wheels on PyPI are')
    out_dir = Path(out_dir)
    info_path = out_dir / INFO
    _remove(info_path)
    listed = scenes(drawings)
    names, mos, std, ref_ids = [], [], [], []
    with tqdm(total=len(listed) * per_scene, desc=f'Drawing the demo data set in {out_dir}', unit='image',
              leave=False, disable=None) as bar:
        for ref, (scene, _, draw) in enumerate(listed, start=1):
            for i, (kind, strength, pair, *marks) in enumerate(degraded_crops(ref, draw, per_scene, size)):
                names.append(f'{scene}-{i:02d}-{kind}-{round(100 * strength):03d}.png')
                for folder, image in zip(('references', 'images'), pair, strict=True):
                    with replacing(out_dir / folder / names[-1]) as temporary:
                        image.save(temporary, format='PNG')
                mos.append(marks[0])
                std.append(marks[1])
                ref_ids.append(ref)
                bar.update()
    order = order_of_contents([kind for _, kind, _ in listed])
    write_info(info_path, names, mos, std, ref_ids, np.empty((len(listed), 0), int), references=names,
               part=parts_of(ref_ids, order))
    return info_path


def write_tables(info_path: Path) -> None:
    """Write two info files: train.csv with the scenes of the parts train and val, test.csv with the others."""
    info = read_info(info_path)
    for name, rows in (('train', np.flatnonzero(info.part != 'test')), ('test', np.flatnonzero(info.part == 'test'))):
        chosen = [info.names[i] for i in rows]
        write_info(info_path.with_name(f'{name}.csv'), chosen, info.mos[rows], info.std[rows], info.ref_ids[rows],
                   np.empty((0, 0), int))


def _remove(path: Path) -> None:
    try:
        Path(os.path.realpath(path)).unlink(missing_ok=True)  # a link stays, and its target is written again
    except OSError as error:
        raise UserError(f'cannot write {path}: {error.strerror or error}') from error


def summary(info_path: Path) -> str:
    """Describe a demo data set: the images, contents and scores of each part."""
    info = read_info(info_path)
    with opened(info_path.parent / 'images' / info.names[0]) as image:
        width, height = image.size
    lines = [f'{info_path}: {len(info.names)} images of {len(set(info.ref_ids))} contents, {width}x{height}']
    for part in PARTS:
        rows = np.flatnonzero(info.part == part)
        mos, contents = info.mos[rows], len(set(info.ref_ids[rows]))
        lines.append(f'{part:>6}: {len(rows)} images of {contents} contents, MOS {mos.min():.1f} to {mos.max():.1f}')
    return '\n'.join(lines)


@group('demo', 'the demo data set')
def drawn(add: Add) -> None:
    add('--out', type=Path, default=OUT_DIR, metavar='DIR', help='where to write the data set')
    add('--drawings', type=number(int, 1, 10 ** 4), default=DRAWINGS,
        help='scenes of each drawn kind, beside the photographs')
    add('--size', type=number(int, 32, 4096), nargs=2, default=list(SIZE), metavar=('W', 'H'),
        help='width and height of the images')
    add('--tables', action='store_true', help='write train.csv and test.csv too, info files of different scenes')


MAKE_DEMO = Command(__doc__, [drawn])


@command
def main(argv: list[str] | None = None) -> None:
    """Parse the options, draw the data set and describe it."""
    args = MAKE_DEMO.parse(argv)
    info_path = make_demo(args.out, drawings=args.drawings, size=tuple(args.size))
    if args.tables:
        write_tables(info_path)
    print(summary(info_path))
