"""Write PSNR and SSIM of the pairs of a data set, as tables that the key `predictions` of a study takes.

    python iqa_studies/psnr_ssim.py --dataset LIVE.csv --im_dir LIVE/images --out LIVE

writes LIVE/PSNR.csv and LIVE/SSIM.csv with columns image and score. Both compare the luminance (Rec. 601) of an image
with that of the reference that the info file names; they need nothing that was trained.
"""
import sys
from pathlib import Path

if not __package__:  # run as a script
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    import iqa_runtime  # noqa: F401 (it names missing packages)

from iqa_data import options as of_data
from iqa_runtime.options import Add, Command, group


@group('tables', 'where the tables are written')
def tables(add: Add) -> None:
    add('--out', metavar='DIR', default='.', help='folder of PSNR.csv and SSIM.csv')


MEASURE = Command(__doc__, [of_data.data, tables], [of_data.places])

if __name__ == '__main__':
    MEASURE.begin()  # --help and mistakes end here

import numpy as np
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from tqdm import tqdm

from iqa_data.datasets import dataset_name
from iqa_data.images import opened, to_rgb
from iqa_data.info import read_info
from iqa_data.references import references_of, stay_inside
from iqa_runtime.errors import UserError, command
from iqa_runtime.files import check_outputs, replacing
from iqa_runtime.names import cell
from iqa_runtime.tables import digits, write_columns
from IQAdataset import source_at

MOST = 100.  # PSNR in dB of two equal images, which would be infinite
WINDOW = 11  # side of the window of SSIM, in pixels


def psnr(reference: np.ndarray, image: np.ndarray) -> float:
    """Return the peak signal-to-noise ratio of two uint8 arrays (h, w) in dB, at most MOST."""
    if np.array_equal(reference, image):
        return MOST
    return min(MOST, float(peak_signal_noise_ratio(reference, image, data_range=255)))


def ssim(reference: np.ndarray, image: np.ndarray) -> float:
    """Return the structural similarity of two uint8 arrays (h, w), at most 1; sides of WINDOW at least.

    With the window and constants of Wang, Bovik, Sheikh and Simoncelli, Image quality assessment: from error visibility
    to structural similarity, IEEE TIP 13(4), 2004.
    """
    return float(structural_similarity(reference, image, data_range=255, gaussian_weights=True, sigma=1.5,
                                       use_sample_covariance=False))


METRICS = {'PSNR': psnr, 'SSIM': ssim}


def luminance(path: Path) -> np.ndarray:
    """Return the luminance of an image, uint8 (h, w); UserError if it cannot be read."""
    with opened(path) as image:
        return np.asarray(to_rgb(image).convert('L'))


@command
def main(argv: list[str] | None = None) -> dict[str, Path]:
    """Parse the options and write the tables; return {metric: file}."""
    args = MEASURE.parse(argv)
    source = source_at(args)
    info = read_info(source.info)
    if not args.allow_outside:
        stay_inside(source.im_dir, info.names)
    images = [Path(source.im_dir, name) for name in info.names]
    references = references_of(source, dataset_name(args.dataset), info, np.arange(len(images)), args.allow_outside)
    files = {metric: Path(args.out, f'{metric}.csv') for metric in METRICS}
    check_outputs({'--out': list(files.values())}, {'--dataset': [source.info, *images, *references]})
    scores: dict[str, list[float]] = {name: [] for name in METRICS}
    for image, reference in zip(tqdm(images, 'PSNR and SSIM', disable=None), references, strict=True):
        pair = luminance(reference), luminance(image)
        (h, w), (height, width) = pair[1].shape, pair[0].shape
        if (h, w) != (height, width) or min(h, w) < WINDOW:
            raise UserError(f'{image}: {w}x{h} pixels, and its reference {reference} {width}x{height}; expected one '
                            f'size, of at least {WINDOW}x{WINDOW}')
        for metric, measure in METRICS.items():
            scores[metric].append(measure(*pair))
    for metric, file in files.items():
        with replacing(file) as temporary:
            write_columns(temporary, {'image': [*map(cell, info.names)], 'score': [*map(digits, scores[metric])]})
    print(f'{len(info.names)} pairs: {", ".join(map(str, files.values()))}')
    return files


if __name__ == '__main__':
    main()
