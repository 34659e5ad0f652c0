"""Score images with a trained network: map its raw output to the MOS scale, with range and percentiles.

`IQAmodel.load(checkpoint)` returns a Scorer. A score is not clamped: k raw + b is unbounded, so that an image worse
than all that were rated can get a score below the lowest MOS, even a negative one; `Scale.outside` reports it.
"""
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor

from iqa_data.crops import Crops
from iqa_data.datasets import source_of
from iqa_data.images import check_samples
from iqa_data.transforms import INTERPOLATIONS, Preprocess, preprocess_of
from iqa_networks.adapted_layers import merged
from iqa_networks.network import Network, scored_first, twin
from iqa_networks.normalise import NORMALISATIONS
from iqa_runtime.checkpoint import check_checkpoint, load_checkpoint
from iqa_runtime.errors import pick
from iqa_runtime.options import Options
from iqa_scoring.mapping import Mapping, Scale
from iqa_scoring.restore import CROPPING, given_network, network_of, of_line, restore_network


def scorer_of(args: Options, checkpoint: dict, file: str | Path, device: str) -> 'Scorer':
    """Return the scorer of a checkpoint; UserError if the user gave a training option that contradicts it.

    A checkpoint of the original package gets its network and its preprocessing from the options.
    """
    args.adopting(checkpoint.get('options', {}), (args.given & args.command.names()) - {'batch_size'} - CROPPING,
                  file)
    preprocess = None if 'input' in checkpoint else preprocess_of(args, source_of(args.dataset))
    return Scorer(restore_network(checkpoint, file, **given_network(args)), checkpoint, preprocess, device)


def completed(args: Options, checkpoint: dict, file: str | Path, scorer: 'Scorer') -> dict:
    """Return the checkpoint, completed from the options if it is of the original package."""
    name, options = network_of(checkpoint, file, given_network(args))
    return {'network': {'name': name, 'options': options}, 'head': scorer.head,
            'input': {'preprocessing': scorer.preprocess.stored(), 'normalise': scorer.network.normalise}, **checkpoint}


def load_scorer(checkpoint: str | Path | dict, device: str = 'cpu', preprocess: Preprocess | None = None,
                crops: Crops | None = None, line_of: str | None = None, **network) -> 'Scorer':
    """Return the scorer of a checkpoint (see IQAmodel.load)."""
    file = 'the checkpoint' if isinstance(checkpoint, dict) else checkpoint
    content = check_checkpoint(checkpoint, file) if isinstance(checkpoint, dict) else load_checkpoint(checkpoint)
    content = of_line(content, file, line_of)
    content |= {'crops': crops.stored()} if crops else {}
    return Scorer(restore_network(content, file, **network), content, preprocess, device)


class Scorer:
    """A trained network with everything needed to score an image in MOS units.

    Args:
        network: x (N, 3, H, W) normalised float -> heads. Set to eval mode, its weights fixed; adapted layers are
            merged into plain ones.
        checkpoint: as `load_checkpoint` returns it; it holds k, b (or the mapping), the input, the crops, the training
            MOS.
        preprocess: replaces the checkpoint's preprocessing.
        device: device of the network.

    Attributes:
        mapping, scale: see Mapping and Scale. `scale.higher_is_better` is the sign of a gain in quality.
        preprocess: preprocessing of paths, PIL images and arrays, by PIL.
        head: position of the scored head among the network's outputs.
        crops: the crops that an image is scored by; None: the whole image.
    """

    def __init__(self, network: Network, checkpoint: dict, preprocess: Preprocess | None = None, device: str = 'cpu'):
        self.network = merged(network).to(device).eval().requires_grad_(False)
        self.mapping, self.scale, self.device = Mapping.of(checkpoint), Scale.of(checkpoint), device
        of_input = checkpoint.get('input', {'preprocessing': {}, 'normalise': network.normalise})
        self.preprocess = preprocess or Preprocess(**of_input['preprocessing'])
        self.network.normalise = pick(NORMALISATIONS, of_input['normalise'], 'normalisation')
        self.head = checkpoint.get('head', len(network.heads) - 1)
        self.crops = Crops(**checkpoint['crops']) if checkpoint.get('crops') else None
        if self.crops:
            self.crops.check_side(network.side)

    @property
    def inputs(self) -> int:
        """Return the number of images that the network compares: 1, or 2 with a reference."""
        return self.network.inputs

    @property
    def has_maps(self) -> bool:
        """Return whether quality maps of an image can be drawn: from the network's local features, or from crops."""
        return self.inputs == 1 and (hasattr(self.network, 'local') or self.crops is not None)

    @property
    def title(self) -> str:
        """Return the name of the scorer for a message."""
        return type(self.network).__name__

    def score(self, image, reference=None, as_loss: bool = False):
        """Return the score of an image, or of each image in a batch, in MOS units.

        Args:
            image: one of
                a path, a PIL image, or a uint8 array (H, W, 3): a float is returned;
                a uint8 array (N, H, W, 3), or a list of the above: a float64 array (N,);
                a float tensor (3, H, W) or (N, 3, H, W) in 0..1: a tensor () or (N,) on the network's device. Pixels
                may exceed 0..1 slightly (iqa_data.images.SLACK), as those of restored images do.
            reference: for a full-reference network, the reference image, of the same kind and size.
            as_loss: keep the gradient from the score to the pixels (float tensors only). The score itself is returned:
                if higher is better, minimise -score.

        Paths, PIL images and arrays are preprocessed as in testing. A float tensor is not rounded to 8 bits, and if the
        checkpoint resizes, it is resized by torch's closest filter, which does not equal PIL's bit for bit. Tensors of
        half precision are computed in float32, under autocast too. Raises ValueError for arrays and tensors that are
        not images, as with NaN or values in -1..1, and TypeError for other objects.
        """
        images = self._inputs(reference, image)
        if isinstance(image, Tensor) and image.is_floating_point():
            with torch.set_grad_enabled(as_loss), self.scoring() as network:
                batches = [resized(_in_range(one.to(self.device)), self.preprocess) for one in images]
                score = self.mapping(self.outputs(network, *_of_one_size(batches))[self.head].mean(1))
            return score if image.ndim == 4 else score[0]
        if as_loss:
            raise TypeError('as_loss needs a float tensor (N, 3, H, W) in 0..1: a path, a PIL image or 8-bit pixels '
                            'have no gradient')
        if isinstance(image, (list, tuple)) or (isinstance(image, np.ndarray) and image.ndim == 4):
            return np.concatenate([np.empty(0), *(self._chunk(*(one[i:i + 8] for one in images))
                                                  for i in range(0, len(image), 8))])
        return float(self._chunk(*([one] for one in images))[0])

    def _inputs(self, reference, image) -> tuple:
        """Return the images that are compared; TypeError if a reference is missing, unwanted or of another kind."""
        if (reference is None) == (self.inputs == 2):
            raise TypeError('this network compares an image with its reference: score(image, reference)'
                            if reference is None else 'this network scores an image without a reference')
        if self.inputs == 1:
            return (image,)
        several = [isinstance(one, (list, tuple)) or getattr(one, 'ndim', 3) == 4 for one in (reference, image)]
        if isinstance(reference, Tensor) != isinstance(image, Tensor) or several[0] != several[1] or (
                several[0] and len(reference) != len(image)):
            raise TypeError('the reference is of another kind or number than the image')
        return reference, image

    def _chunk(self, *lists) -> np.ndarray:
        """Score lists of paths, PIL images or arrays, references first: as one batch if their sizes are equal."""
        inputs = [[pil_to_tensor(self.preprocess(image) if isinstance(image, (str, Path))
                                 else self.preprocess.of(_as_pil(image))) for image in images] for images in lists]
        same = len({tuple(one.shape) for images in inputs for one in images}) == 1
        batches = [[torch.stack(images) for images in inputs]] if same else [
            [one[None] for one in images] for images in zip(*inputs, strict=True)]
        return np.concatenate([self.measure(*batch)[0] for batch in batches])

    def measure(self, *pixels: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Return scores (N,) in MOS units and raw outputs (N, heads), the scored head first; see `measure_crops`."""
        return self.measure_crops(*pixels)[:2]

    def heads(self, *pixels: Tensor) -> np.ndarray:
        """Return raw outputs (N, heads) float64, the scored head first; see `measure_crops`."""
        return self.measure_crops(*pixels)[1]

    def measure_crops(self, *pixels: Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Return scores, raw outputs, spread over crops and uncertainty, float64, of preprocessed uint8 (N, 3, H, W).

        A full-reference network takes two: reference and distorted.

        Returns:
            scores (N,) in MOS units, raw outputs (N, heads), the scored head first, and two standard deviations (N,) in
            MOS units, nan if there are none: of the scores of the crops, and of the distribution that the network
            predicts. With crops, a raw output is the mean over them, and a variance too.
        """
        with torch.inference_mode(), self.scoring() as network:
            outputs = [output.cpu().double().numpy() for output in self.outputs(network, *_of_one_size(pixels))]
        count = len(self.network.heads)
        heads, deviations = scored_first(outputs[:count], self.head), outputs[count:]
        raw = np.stack([head.mean(1) for head in heads], 1)
        unknown = np.full(len(raw), np.nan)
        spread = self.mapping(heads[0]).std(1) if self.crops else unknown
        deviation = np.sqrt(np.square(deviations[self.head]).mean(1)) if deviations else unknown
        uncertainty = np.abs(self.mapping(raw[:, 0] + deviation) - self.mapping(raw[:, 0] - deviation)) / 2
        return self.mapping(raw[:, 0]), raw, spread, uncertainty

    def outputs(self, network: Network, *images: Tensor) -> Sequence[Tensor]:
        """Return the raw scores of each head, (N, 1), or (N, crops) if images are scored by crops.

        Of a network that predicts distributions, their standard deviations follow.

        Images are as in `Network.prepare`, and keep their gradient; `network` is that of `scoring`.
        """
        def score(*images: Tensor) -> Sequence[Tensor]:
            return network.measure(*network.prepare(images))
        return self.crops(score, *images) if self.crops else score(*images)

    def local(self, pixels: Tensor, window: int) -> Tensor | tuple[Tensor, Tensor]:
        """Return the raw local scores of preprocessed uint8 images, or scores and weights (see iqa_scoring/maps.py).

        They come from the network's own features if it has local features of the whole image, or else from crops.
        """
        with torch.inference_mode(), self.scoring() as network:
            if self.crops and (network.side or not hasattr(network, 'local')):
                return self.crops.local(lambda crops: network.measure(*network.prepare(crops)), pixels, self.head)
            return network.local(*network.prepare(pixels), window, self.head)

    @contextmanager
    def scoring(self) -> Iterator[Network]:
        """Yield the network as it scores: in eval mode and without autocast, whatever its own mode and the caller's.

        The network itself is not changed: other threads may score with it.
        """
        training = any(module.training for module in self.network.modules())
        with torch.autocast(torch.device(self.device).type, enabled=False):
            yield twin(self.network).eval() if training else self.network


def _of_one_size(images: Sequence[Tensor]) -> Sequence[Tensor]:
    """Return the images; ValueError if the reference and the distorted image differ in size."""
    if len({image.shape for image in images}) > 1:
        (h, w), (height, width) = (image.shape[-2:] for image in images)
        raise ValueError(f'the reference has {w}x{h} pixels, the distorted image {width}x{height}')
    return images


def resized(x: Tensor, preprocess: Preprocess) -> Tensor:
    """Bring float (N, 3, H, W) in 0..1 to the sizes of `preprocess`, by torch's filters (INTERPOLATIONS)."""
    def resize(x: Tensor, size: tuple[int, int], name: str) -> Tensor:
        x = F.interpolate(x, tuple(size), align_corners=False, **INTERPOLATIONS[name])
        return x if name == 'bilinear' else x.clamp(0, 1)  # the others overshoot, which 8-bit images clip
    return preprocess.sized(x, resize)


def _in_range(image: Tensor) -> Tensor:
    """Return a float image as a batch, in float32 at least; ValueError if it is not an image (3, H, W) in 0..1."""
    x = image if image.ndim == 4 else image[None]
    if x.ndim != 4 or x.shape[1] != 3 or 0 in x.shape[2:] or not x.is_floating_point():
        raise ValueError(f'expected a float tensor (3, H, W) or (N, 3, H, W), got {tuple(image.shape)} {image.dtype}')
    x = x if x.dtype == torch.float64 else x.float()
    if len(x):
        check_samples(*(end.item() for end in x.detach().aminmax()))
    return x


def _as_pil(image) -> Image.Image:
    """Return a PIL image or 8-bit pixels as a PIL image; ValueError for other arrays, TypeError for other objects."""
    if isinstance(image, Image.Image):
        return image
    if isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.size and image.shape[2:] == (3,):
        return Image.fromarray(image)
    expected = 'expected a path, a PIL image, a uint8 array (H, W, 3) or a float tensor in 0..1, got '
    if hasattr(image, 'shape'):
        raise ValueError(f'{expected}{image.dtype} {tuple(image.shape)}')
    raise TypeError(expected + type(image).__name__)
