"""Export a trained model, with its preprocessing and its mapping to MOS inside: uint8 (N, H, W, 3) in, MOS (N,) out.

The batch size and, if the pooling allows it, the height and width of the images are free. If the checkpoint resizes,
images of any size are resized inside by torch's equivalent filter in floating point, which does not match PIL's to the
last bit: the difference from test_demo.py's scores is printed. Without --resize, pyramids (--P6 or --P7 above 1) need
--size. Each file is read again after writing and compared with PyTorch on random images; a difference above 1e-3 MOS
units is an error (exit status 1). Packages older than those in requirements-export.txt fail: onnxscript before 0.7.1
leaves out the antialiasing, and torch 2.11 restricts free sizes to one parity.
"""
import sys
from pathlib import Path

if not __package__:  # run as a script
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from iqa_scoring.options import EXPORT

if __name__ == '__main__':
    EXPORT.begin()  # --help and mistakes end here, before torch is imported

import io
import json
import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor, nn

from iqa_networks.normalise import NORMALISATIONS
from iqa_runtime.checkpoint import halved, load_checkpoint, save_checkpoint
from iqa_runtime.errors import UserError, command
from iqa_runtime.files import check_outputs, replacing
from iqa_runtime.options import Options
from iqa_scoring.restore import as_asked
from iqa_scoring.scorer import Scorer, resized, scorer_of
from iqa_training.card import write_card
from iqa_training.naming import find_checkpoint

TOLERANCE = 1e-3  # MOS units
INSTALL = 'pip install -r requirements-export.txt'


class Exported(nn.Module):
    """The module that is exported: uint8 (N, H, W, 3) -> float32 (N,) in MOS units.

    Of a network that predicts a distribution: (score, uncertainty), (N,) each.
    """

    def __init__(self, scorer: Scorer):
        super().__init__()
        self.network, self.mapping, self.preprocess = scorer.network, scorer.mapping, scorer.preprocess
        self.normalise, self.head = NORMALISATIONS[scorer.network.normalise], scorer.head
        self.crops = scorer.crops

    @property
    def outputs(self) -> list[str]:
        """Return the names of the outputs."""
        return ['mos'] + ['uncertainty'] * (self.network.distribution is not None)

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Score a batch."""
        x = resized(images.permute(0, 3, 1, 2).float() / 255, self.preprocess)
        cut = self.crops.stacked(x) if self.crops else x
        heads, count = self.network.measure(self.normalise(cut)), self.crops.count if self.crops else 1
        raw = heads[self.head].view(-1, count).mean(1)
        if self.network.distribution is None:
            return self.mapping(raw)
        variances = heads[len(heads) // 2 + self.head].view(-1, count).square()
        deviation = variances.mean(1).sqrt()
        return self.mapping(raw), (self.mapping(raw + deviation) - self.mapping(raw - deviation)).abs() / 2


def arrays(outputs) -> np.ndarray:
    """Return what an exported module returns as an array: scores (N,), or scores and uncertainties (2, N)."""
    return np.stack([np.asarray(one) for one in outputs]) if isinstance(outputs, (tuple, list)) else outputs.numpy()


@command
def main(argv: list[str] | None = None) -> dict[str, float]:
    """Parse the options and export; return {file: largest difference from PyTorch in MOS units}."""
    args = EXPORT.parse(argv)
    wanted = {kind: getattr(args, kind) for kind in FORMATS if getattr(args, kind)}
    if not (wanted or args.half):
        raise UserError('give --onnx FILE, --torch_export FILE or --half FILE')
    file = find_checkpoint(args)
    check_outputs({**{f'--{kind}': path for kind, path in wanted.items()}, '--half': args.half},
                  {'--trained_model_file': file})
    stored = load_checkpoint(file)
    checkpoint = as_asked(args, stored, file)
    scorer = scorer_of(args, checkpoint, file, 'cpu')
    if args.half:
        write_half(args.half, args, stored, scorer)
    return write_all(wanted, args, checkpoint, scorer, file) if wanted else {}


def write_half(path: str, args: Options, checkpoint: dict, scorer: Scorer) -> None:
    """Write a stored checkpoint with its weights in half precision; print how much scores of random images change."""
    small = {**checkpoint, 'model': halved(checkpoint['model'])}
    save_checkpoint(path, small)
    write_card(Path(path), small)
    side = scorer.network.side or 448
    pairs = np.split(random_images((4 * scorer.inputs, side, side)), scorer.inputs)
    again = scorer_of(args, as_asked(args, load_checkpoint(path), path), path, 'cpu')
    print(f'{path}: {Path(path).stat().st_size / 1e6:.1f} MB; scores of random images change by '
          f'{np.abs(again.score(*pairs) - scorer.score(*pairs)).max():.2g} MOS units at most')


def write_all(wanted: dict[str, str], args: Options, checkpoint: dict, scorer: Scorer, file: Path) -> dict[str, float]:
    """Write the files {kind: path}; return {file: largest difference from PyTorch in MOS units}."""
    if scorer.inputs == 2:
        raise UserError(f'{file}: the network compares an image with its reference, but an exported file takes one '
                        'image: score pairs with test_demo.py --ref')
    preprocess, fixed = scorer.preprocess, (args.size and tuple(args.size)) or None
    if scorer.crops and not scorer.crops.fixed:
        raise UserError(f'--crop_places {scorer.crops.places}: the places depend on the content of an image, which an '
                        'exported file does not examine: give --crop_places grid')
    enlarges = preprocess.fit == 'enlarge'
    one_size = preprocess.first_resize or preprocess.resize if not enlarges else preprocess.first_resize
    any_size = scorer.network.any_size and not scorer.crops and not enlarges
    if not (fixed or one_size or any_size):
        raise UserError('without --resize, this network can be exported for one size of images only: give --size H W')
    about = metadata(scorer, checkpoint, fixed)
    differences = {path: export(kind, path, scorer, about, fixed) for kind, path in wanted.items()}
    for path, difference in differences.items():
        print(f'{path}: largest difference from PyTorch on random images {difference:.2g} MOS units')
    if preprocess.resize or preprocess.first_resize:
        print(f'Largest difference from test_demo.py, which resizes with PIL: {pil_difference(scorer):.2g} MOS units')
    too_large = [path for path, difference in differences.items() if not difference <= TOLERANCE]
    if too_large:
        print(f'{", ".join(too_large)}: above {TOLERANCE} MOS units: do not use (torch {torch.__version__}; '
              f'export is tested with the versions in requirements-export.txt)')
        raise SystemExit(1)
    return differences


def metadata(scorer: Scorer, checkpoint: dict, size: tuple[int, int] | None) -> dict[str, str]:
    """Return the metadata of the file as text, values other than text as JSON."""
    network = checkpoint.get('network', {'name': type(scorer.network).__name__, 'options': {}})
    about = {'architecture': network['name'], **network['options'], 'resize': scorer.preprocess.resize,
             'first_resize': scorer.preprocess.first_resize, 'size': size,
             'crops': scorer.crops and scorer.crops.stored(),
             'mapping': scorer.mapping.name, 'mapping_parameters': scorer.mapping.parameters,
             'mos_min': scorer.scale.low, 'mos_max': scorer.scale.high,
             'higher_is_better': scorer.scale.higher_is_better, 'input': 'uint8 (N, H, W, 3), RGB',
             'output': f'float32 (N,), MOS{", and uncertainty" * (scorer.network.distribution is not None)}'}
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in about.items()}


def export(kind: str, path: str, scorer: Scorer, about: dict[str, str], size: tuple[int, int] | None) -> float:
    """Write one file, read it again, and return the largest difference on random images in MOS units."""
    write, read = FORMATS[kind]
    model = Exported(scorer).eval()
    sides = size or (224, 288)
    dynamic = {0: 'batch'} if size else {0: 'batch', 1: 'height', 2: 'width'}
    example = torch.zeros(2, *sides, 3, dtype=torch.uint8)
    with torch.no_grad(), replacing(path) as temporary:
        try:
            write(model, (example,), dynamic, about, temporary)
        except (RuntimeError, ValueError) as error:
            if isinstance(error, UserError):
                raise
            raise UserError(f'--{kind}: torch cannot export this network: {str(error).strip().splitlines()[-1]}'
                            ) from error
    run = read(path)
    shapes = [(1, *sides), (3, *sides)] if size else [(1, *sides), (3, sides[0] + 37, sides[1] - 21)]
    try:
        return max(float(np.abs(run(images) - arrays(model(torch.from_numpy(images)))).max())
                   for images in (random_images(shape) for shape in shapes))
    except Exception as error:  # onnxruntime and exported programs raise many kinds
        print(f'{path}: does not run: {str(error).strip().splitlines()[-1]}')
        return float('inf')


def random_images(shape: tuple[int, ...]) -> np.ndarray:
    """Return uint8 (N, H, W, 3): coarse random patterns with noise, the same each time."""
    n, height, width = shape
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (n, height // 16 + 1, width // 16 + 1, 3))
    smooth = coarse.repeat(16, 1).repeat(16, 2)[:, :height, :width]
    return (smooth + rng.normal(0, 20, smooth.shape)).clip(0, 255).astype(np.uint8)


def pil_difference(scorer: Scorer) -> float:
    """Return the largest change of the scores of random images by the graph's own resizing, in MOS units."""
    images = random_images((4, 600, 800))
    with torch.no_grad():
        scores = np.atleast_2d(arrays(Exported(scorer)(torch.from_numpy(images))))[0]
        return float(np.abs(scores - scorer.score(images)).max())


def write_onnx(model: nn.Module, example: tuple[Tensor], dynamic: dict[int, str], about: dict[str, str],
               path: Path | BinaryIO) -> None:
    """Write an ONNX file, or into an open one; raise UserError if its packages are not installed."""
    check_onnx('--onnx')
    import onnx
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # torch's warnings about itself
        program = torch.onnx.export(model, example, dynamo=True, dynamic_shapes={'images': dynamic},
                                    input_names=['images'], output_names=model.outputs, verbose=False)
    proto = program.model_proto
    onnx.helper.set_model_props(proto, about)
    onnx.save(proto, path)


def check_onnx(option: str) -> None:
    """Raise UserError if packages that an option needs are not installed: better now than after the export."""
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401 (torch needs it)
    except ImportError as error:
        raise UserError(f'{option} needs {error.name}: {INSTALL}') from None


def read_onnx(path: str) -> Callable[[np.ndarray], np.ndarray]:
    """Return the function that an ONNX file computes, by onnxruntime on the CPU."""
    import onnxruntime
    session = onnxruntime.InferenceSession(Path(path).read_bytes(), providers=['CPUExecutionProvider'])

    def run(images: np.ndarray) -> np.ndarray:
        found = session.run(None, {'images': images})
        return arrays(found) if len(found) > 1 else found[0]
    return run


def write_torch(model: nn.Module, example: tuple[Tensor], dynamic: dict[int, str], about: dict[str, str],
                path: Path) -> None:
    """Write a program of torch.export; its `extra_files` hold metadata.json."""
    program = torch.export.export(model, example, dynamic_shapes={
        'images': dict.fromkeys(dynamic, torch.export.Dim.DYNAMIC)})
    buffer = io.BytesIO()  # in memory first: torch ends the process if the disk is full
    torch.export.save(program, buffer, extra_files={'metadata.json': json.dumps(about)})
    path.write_bytes(buffer.getbuffer())


def read_torch(path: str) -> Callable[[np.ndarray], np.ndarray]:
    """Return the function that a program of torch.export computes."""
    with open(path, 'rb') as file:
        module = torch.export.load(file).module()

    def run(images: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return arrays(module(torch.from_numpy(images)))
    return run


# option -> functions that write and read the format
FORMATS = {'onnx': (write_onnx, read_onnx), 'torch_export': (write_torch, read_torch)}
logging.getLogger('torch.onnx').setLevel(logging.ERROR)

if __name__ == '__main__':
    main()
