"""Choose the program that computes the network of a scorer (--engine): torch, or ONNX Runtime."""
import io
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr

import torch
from torch import Tensor, nn

from iqa_networks.network import Network
from iqa_runtime.errors import UserError, first_line
from iqa_scoring.export import check_onnx, write_onnx
from iqa_scoring.scorer import Scorer

SIZES = 4  # sizes of images for which a network is compiled, which takes time


class OnnxNetwork(Network):
    """A trained network whose outputs ONNX Runtime computes on the CPU, with torch's number of threads.

    It is compiled when the first batch of a size arrives. Images of further sizes than the first SIZES, a network that
    cannot be exported, and quality maps are computed by torch.

    Args:
        network: the trained network, in eval mode; it takes one image.
    """

    def __init__(self, network: Network):
        super().__init__()
        self.network, self.sessions = network, {}
        self.heads, self.side, self.normalise = network.heads, network.side, network.normalise
        self.distribution = network.distribution
        if hasattr(network, 'local'):
            self.local = network.local

    def measure(self, images: Tensor) -> list[Tensor]:
        """Return the scores (N, 1) of the heads, and of distributions their standard deviations."""
        size = tuple(images.shape[2:])
        if size not in self.sessions and len(self.sessions) < SIZES:
            self.sessions[size] = compiled(self.network, size)
        session = self.sessions.get(size)
        if session is None:
            return self.network.measure(images)
        return [torch.from_numpy(one) for one in session.run(None, {'images': images.contiguous().numpy()})]


class _Measured(nn.Module):
    """The module that is compiled: normalised images (N, 3, H, W) -> what `Network.measure` returns."""

    def __init__(self, network: Network):
        super().__init__()
        self.network = network
        self.outputs = [f'output{i}' for i in range(len(network.heads) * (1 if network.distribution is None else 2))]

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.network.measure(images))


def compiled(network: Network, size: tuple[int, int]):
    """Return an onnxruntime.InferenceSession for images of (h, w); None, with a warning, if there can be none."""
    import onnxruntime
    options, file = onnxruntime.SessionOptions(), io.BytesIO()
    options.intra_op_num_threads = torch.get_num_threads()
    example = torch.zeros(2, 3, *size, dtype=next(network.parameters()).dtype)
    try:
        with torch.inference_mode(False), torch.no_grad(), _quiet():
            write_onnx(_Measured(network).eval(), (example,), {0: 'batch'}, {}, file)
        return onnxruntime.InferenceSession(file.getvalue(), options, providers=['CPUExecutionProvider'])
    except Exception as error:  # torch's exporter and onnxruntime raise many kinds
        print(f'WARNING: --engine onnx: torch computes this network, which cannot be exported for images of '
              f'{size[1]}x{size[0]}: {first_line(error.__cause__ or error)[:200]}', file=sys.stderr)
        return None


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the log and stderr silent within the context: torch describes a failed export in some twenty lines."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(before)


def by_torch(scorer: Scorer) -> Scorer:
    """Return the scorer itself."""
    return scorer


def by_onnxruntime(scorer: Scorer) -> Scorer:
    """Let ONNX Runtime compute the scorer's network; UserError if it cannot."""
    if scorer.device != 'cpu':
        raise UserError(f'--engine onnx computes on the CPU, not on {scorer.device}: give --device cpu')
    if scorer.inputs == 2:
        raise UserError('--engine onnx: the network compares an image with its reference: give --engine torch')
    check_onnx('--engine onnx')
    scorer.network = OnnxNetwork(scorer.network).eval()
    return scorer


# name -> function that returns a scorer whose network that program computes
ENGINES: dict[str, Callable[[Scorer], Scorer]] = {'torch': by_torch, 'onnx': by_onnxruntime}
