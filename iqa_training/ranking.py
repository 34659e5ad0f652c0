"""Train the ranker on random numbers and their ranks, and test it."""
from dataclasses import asdict, dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from iqa_losses import LOSSES
from iqa_losses.ranking import unranked
from iqa_losses.soft_ranks import exact_ranks
from iqa_networks.ranker import Ranker, load_ranker
from iqa_runtime.checkpoint import checksum, read_tensors, write_tensors
from iqa_runtime.checks import checked_value, dict_of, fields, list_of, number, optional, plain, tensors, whole
from iqa_runtime.errors import UserError
from iqa_runtime.files import locked
from iqa_runtime.options import Options
from iqa_training.schedules import step_decay
from iqa_training.updates import KerasAdam

NAME = 'asna_ranker'  # of the ranker's files
MOMENTUM = .1  # Keras's .01 needs hundreds of steps before the running statistics are usable; training is the same
VALIDATED_AT_ONCE = 8192  # rows


@dataclass(frozen=True)
class RankerPlan:
    """How a ranker is trained; the defaults are those of the published one.

    Attributes:
        size: numbers in a set, which are ranked together.
        rows: sets of numbers, a fifth of them for validation.
        epochs, batch_size, learning_rate: of Adam.
        decay_every: epochs between decays of the learning rate to a tenth, the first an epoch early.
        seed: of the numbers, the weights, and the order of the batches.
    """

    size: int = 16
    rows: int = 2_000_000
    epochs: int = 100
    batch_size: int = 1024
    learning_rate: float = 1e-3
    decay_every: int = 30
    seed: int = 42


# the plan of a ranker that is trained because its file is missing
SHORT = RankerPlan(rows=512_000, epochs=5, batch_size=256, decay_every=4)


def numbers_to_rank(rows: int, size: int, seed: int) -> Tensor:
    """Return numbers (rows, size) float32: the first half normal with deviation 2, the others uniform in -10..10."""
    generator = torch.Generator().manual_seed(seed)
    normal = torch.randn(rows // 2, size, generator=generator) * 2
    uniform = torch.rand(rows - rows // 2, size, generator=generator) * 20 - 10
    return torch.cat((normal, uniform))


def rank_correlation(a: Tensor, b: Tensor) -> Tensor:
    """Return 1 - 6 sum (a - b)^2 / (n (n^2 - 1)) of ranks (..., n): Spearman's correlation, if they are exact."""
    n = a.shape[-1]
    return 1 - 6 * (a - b).square().sum(-1) / (n * (n * n - 1))


# Training

class Training:
    """Trains a ranker, and keeps a state beside its file.

    Args:
        plan: see RankerPlan.
        file: file of the best ranker, written at the end.
        device: device of the training.
    """

    def __init__(self, plan: RankerPlan, file: Path, device: str = 'cpu'):
        self.plan, self.file, self.device = plan, file, device
        rows = numbers_to_rank(plan.rows, plan.size, plan.seed)[self._permutation(0, plan.rows)].to(device)
        validated = max(1, plan.rows // 5)
        self.validation, self.rows = rows[:validated], rows[validated:]
        with torch.random.fork_rng():  # do not change the caller's random numbers
            torch.manual_seed(plan.seed)
            self.ranker = Ranker(plan.size, MOMENTUM).to(device)
        self.optimizer = KerasAdam(self.ranker.parameters(), plan.learning_rate)
        self.factor = step_decay(.1, plan.decay_every)
        self.steps = -(-len(self.rows) // plan.batch_size)
        self.iteration, self.errors, self.best = 0, [], None

    def _permutation(self, part: int, count: int) -> Tensor:
        return torch.randperm(count, generator=torch.Generator().manual_seed(self.plan.seed * 10 ** 6 + part))

    def run(self, stop: SimpleNamespace, pbar: bool = False) -> None:
        """Train to the end and write the ranker; if `stop.signal` is set, write the state and end the process."""
        total = self.plan.epochs * self.steps
        with tqdm(desc='Training the ranker', total=total, initial=self.iteration, disable=not pbar) as bar:
            while self.iteration < total:
                epoch = self.iteration // self.steps
                for group in self.optimizer.param_groups:
                    group['lr'] = self.plan.learning_rate * self.factor(epoch)
                order = self._permutation(epoch + 1, len(self.rows)).split(self.plan.batch_size)
                for chosen in order[self.iteration % self.steps:]:
                    bar.set_postfix(loss=self.step(self.rows[chosen.to(self.device)]), refresh=False)
                    bar.update()
                    if stop.signal is not None:
                        self._leave(stop.signal)
                self.validate()
                self.save_state()
        write_tensors(self.file, {'model': self.best, 'training': asdict(self.plan), 'errors': self.errors})
        self.state_file.unlink(missing_ok=True)

    def step(self, values: Tensor) -> float:
        """Train on numbers (N, size); return the mean absolute error of their ranks."""
        self.ranker.train()
        loss = F.l1_loss(self.ranker(values), exact_ranks(values))
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.iteration += 1
        return loss.item()

    def validate(self) -> None:
        """Compute the mean absolute error of the validation rows, and keep the weights if it is the least."""
        self.errors.append(rank_error(self.ranker, self.validation))
        if self.errors[-1] == min(self.errors):
            self.best = {name: tensor.detach().cpu().clone() for name, tensor in self.ranker.state_dict().items()}

    # The state

    @property
    def state_file(self) -> Path:
        """Return the file of the state."""
        return self.file.with_name(f'{self.file.name}.state')

    def save_state(self) -> None:
        """Write the state of this iteration."""
        state = {'plan': asdict(self.plan), 'iteration': self.iteration, 'errors': self.errors, 'best': self.best,
                 'model': self.ranker.state_dict(), 'optimizer': self.optimizer.state_dict()}
        write_tensors(self.state_file, {**state, 'checksum': checksum(state)})

    def resume(self) -> None:
        """Resume from the state, if there is one; raise UserError if it is damaged or of another plan."""
        if not self.state_file.exists():
            return
        content, path = read_tensors(self.state_file), self.state_file
        state = checked_value(path, 'state', fields(**CHECKS), content)
        if checksum({key: value for key, value in content.items() if key != 'checksum'}) != content.get('checksum'):
            raise UserError(f'{path}: the state is damaged (its checksum does not match)')
        if state['plan'] != asdict(self.plan):
            raise UserError(f'{path}: the training had other options, {state["plan"]}: give them, or remove the file')
        try:
            self.ranker.load_state_dict(state['model'])
            self.optimizer.load_state_dict(state['optimizer'])
        except (RuntimeError, ValueError, KeyError, TypeError) as error:
            raise UserError(f'{path}: the state does not fit ({str(error).splitlines()[0][:200]})') from None
        self.iteration, self.errors, self.best = state['iteration'], state['errors'], state['best']

    def _leave(self, signal: int) -> None:
        if self.iteration % self.steps == 0:
            self.validate()
        self.save_state()
        print(f'Stopped after step {self.iteration} of the ranker; the state is {self.state_file}', flush=True)
        raise SystemExit(128 + signal)


CHECKS = {'plan': dict_of(plain), 'iteration': whole, 'errors': lambda value: list_of(number)(value) if value else [],
          'best': optional(tensors), 'model': tensors, 'optimizer': dict_of(lambda value: value)}


@torch.no_grad()
def rank_error(ranker: Ranker, values: Tensor) -> float:
    """Return the mean absolute error of the ranks of numbers (N, size)."""
    ranker.eval()
    total = sum((ranker(part) - exact_ranks(part)).abs().sum().item() for part in values.split(VALIDATED_AT_ONCE))
    return total / values.numel()


# The test

# name -> (numbers (N, n) normal, others) -> two sets of numbers
PAIRS = {
    'independent': lambda x, e: (x, e),
    'correlated': lambda x, e: (x, .8 * x + .6 * e),
    'independent, deviation .3': lambda x, e: (.3 * x, .3 * e),
}


@torch.no_grad()
def correlations(ranker: Ranker, pairs: int = 1000, seed: int = 0) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return, for each row of PAIRS, the true and the surrogate Spearman correlations of `pairs` pairs of sets."""
    generator, device = torch.Generator().manual_seed(seed), next(ranker.parameters()).device
    ranker.eval()
    found = {}
    for name, make in PAIRS.items():
        drawn = torch.randn(2, pairs, ranker.n, generator=generator).to(device)
        a, b = make(*drawn)
        found[name] = tuple(rank_correlation(rank(a), rank(b)).cpu().numpy() for rank in (exact_ranks, ranker))
    return found


def needs_ranker(args: Options) -> bool:
    """Return whether the loss that the options choose needs a ranker."""
    return 'ranker' in LOSSES.taken(args.values) and bool(args.spearman_factor)


def find_ranker(args: Options, device: str, stop: SimpleNamespace) -> Ranker | None:
    """Return the ranker that the loss needs, in inference mode; None if it needs none.

    The ranker is read from --ranker, or else from the folder of checkpoints; there it is trained if it is missing.
    """
    if not needs_ranker(args):
        return None
    file = Path(args.ranker or Path(args.checkpoint_dir, f'{NAME}.pth'))
    if not args.ranker and not file.exists():
        with locked(file.with_suffix('.lock'), wait=True):  # one of several processes trains it
            if not file.exists():
                print(f'There is no {file}, the ranker of --loss_type macs: a short training makes it now '
                      '(iqa_training/train_ranker.py trains it as published)', flush=True)
                training = Training(SHORT, file, device)
                training.resume()
                training.run(stop, args.pbar)
    return load_ranker(file).to(device)


def warn_of_ranker(ranker: Ranker, args: Options, images: int) -> None:
    """Print how many of an epoch's scores the ranker leaves out, and warn if scores are not those it was trained on."""
    batch = args.batch_size
    left = images // batch * unranked(batch, ranker) + unranked(images % batch, ranker)
    if left:
        print(f'The ranker takes {ranker.n} scores of a batch at a time: with --batch_size {batch}, {left} of the '
              f'{images} scores in an epoch are left out of the rank term')
    if args.target[0] != 'zscore':
        print('WARNING: the ranker was trained on numbers like z-scores, -10 to 10: give --target zscore')
