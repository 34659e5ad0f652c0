"""How well predictions agree with opinion scores: the linear mapping, the criteria, and the ignite metric."""
import json
import warnings
from collections.abc import Sequence
from pathlib import Path

import ignite.distributed as idist
import numpy as np
import pandas as pd
import torch
import torch.distributed as dist
from ignite.exceptions import NotComputableError
from ignite.metrics import Metric
from scipy import stats

from iqa_runtime.files import replacing, write_text

CRITERIA = ('SROCC', 'PLCC', 'RMSE', 'KROCC')
SUFFIXES = ('', '1', '2')  # of the final head, level 6, level 7


def fit_line(raw: np.ndarray, mos: np.ndarray) -> tuple[float, float]:
    """Least-squares k, b of mos ~ k raw + b; both (N,) float64. A constant `raw` gives k = 0, b = mean of mos."""
    centred = raw - raw.mean()
    variance = centred @ centred
    k = float(centred @ mos / variance) if variance > 0 else 0.
    return k, float(mos.mean() - k * raw.mean())


def agreement(pq: np.ndarray, sq: np.ndarray) -> dict[str, float]:
    """SROCC, PLCC, KROCC in -1..1 and RMSE >= 0 in the unit of `sq`, of predictions and MOS, both (N,).

    The correlations of a constant, of non-finite values or of fewer than two images are nan.
    """
    if len(pq) < 2 or not np.isfinite(pq).all() or np.ptp(pq) == 0 or np.ptp(sq) == 0:
        correlations = dict.fromkeys(('SROCC', 'PLCC', 'KROCC'), float('nan'))
    else:
        correlations = {'SROCC': stats.spearmanr(sq, pq)[0], 'PLCC': stats.pearsonr(sq, pq)[0],
                        'KROCC': stats.kendalltau(sq, pq)[0]}
    return {**{name: float(value) for name, value in correlations.items()},
            'RMSE': float(np.sqrt(np.mean((sq - pq) ** 2)))}


class IQAPerformance(Metric):
    """All criteria of all heads, computed once at the end in float64.

    `update((outputs, (mos, std)))` takes a sequence of (N, 1) predictions, the final one last, and (N, 1) scores.
    `compute()` takes the images of all processes and returns a dictionary: SROCC, PLCC, KROCC, RMSE of the final head,
    with suffix 1, 2, ... of the other heads in their order (levels 6 and 7); the arrays (images,) sq, sq_std, pq, pq1,
    pq2 in MOS units and pq_before, ... raw; the lists k, b, final head first.

    Args:
        status: 'train' fits k, b on the images seen; 'test' applies those given.
        k, b: the lines of the heads for status 'test', final head first (default: 1 and 0). Never changed.
        mapping: False leaves the predictions as they are.
    """

    def __init__(self, status: str = 'train', k: Sequence[float] = (1, 1, 1), b: Sequence[float] = (0, 0, 0),
                 mapping: bool = True, device: str | torch.device = 'cpu'):
        if status not in ('train', 'test'):
            raise ValueError(f"status must be 'train' or 'test', got {status!r}")
        self.status, self.k, self.b, self.mapping = status, tuple(k), tuple(b), mapping
        super().__init__(device=device, skip_unrolling=True)

    def reset(self) -> None:
        """Forget all images."""
        self._heads, self._scores = [], []

    def update(self, output: tuple[Sequence[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]) -> None:
        """Take one batch (see the class)."""
        outputs, scores = output
        heads = [outputs[-1], *outputs[:-1]]
        self._heads.append(torch.cat([head.detach().reshape(-1, 1) for head in heads], 1).double().cpu())
        self._scores.append(torch.cat([score.detach().reshape(-1, 1) for score in scores], 1).double().cpu())

    def compute(self) -> dict:
        """Return the criteria, the arrays and k, b (see the class); NotComputableError where no image came."""
        heads, scores = (everywhere(batches) for batches in (self._heads, self._scores))
        if not heads:
            raise NotComputableError('IQAPerformance needs at least one image')
        raw = torch.cat(heads).numpy().T
        sq, sq_std = torch.cat(scores).numpy().T
        result = {'sq': sq, 'sq_std': sq_std, 'k': [], 'b': []}
        for i, before in enumerate(raw):
            k, b = self._line(i, before, sq)
            suffix = str(i or '')
            result[f'pq{suffix}'], result[f'pq{suffix}_before'] = k * before + b, before
            result['k'].append(k)
            result['b'].append(b)
            # with k = 0 the mapped scores are constant, and the correlations nan, as they should be
            result.update({name + suffix: value for name, value in agreement(k * before + b, sq).items()})
        undefined = [name for name, value in result.items() if isinstance(value, float) and np.isnan(value)]
        if undefined:
            warnings.warn(f'{", ".join(undefined)} not defined (constant or non-finite predictions or scores, '
                          f'{len(sq)} images): reported as nan', RuntimeWarning, stacklevel=2)
        return result

    def _line(self, head: int, raw: np.ndarray, sq: np.ndarray) -> tuple[float, float]:
        if not self.mapping:
            return 1., 0.
        return fit_line(raw, sq) if self.status == 'train' else (float(self.k[head]), float(self.b[head]))


def everywhere(batches: list[torch.Tensor]) -> list[torch.Tensor]:
    """The batches of all processes, those of rank 0 first; a process may have none."""
    if idist.get_world_size() == 1:
        return batches
    gathered = [None] * idist.get_world_size()
    dist.all_gather_object(gathered, batches)
    return [batch for of_rank in gathered for batch in of_rank]


def criteria_of(performance: dict) -> dict[str, float]:
    """The numbers of a result of IQAPerformance, without its arrays and lists, in the order of the table."""
    return {name + suffix: performance[name + suffix] for suffix in SUFFIXES for name in CRITERIA
            if name + suffix in performance}


HEADS = ('both levels', 'level 6', 'level 7')


def write_results(folder: str | Path, name: str, names: list[str], performance: dict, about: dict) -> list[Path]:
    """Write FOLDER/NAME.csv (per image) and FOLDER/NAME.json (metrics, k, b, and what `about` says); return both.

    The table's columns: name; mos and std of the opinions; pq, pq1, pq2 the scores of the final head, level 6 and
    level 7 in MOS units; the same with _before, raw.
    """
    table = pd.DataFrame({'name': names, 'mos': performance['sq'], 'std': performance['sq_std']})
    for column in (f'pq{suffix}{raw}' for raw in ('', '_before') for suffix in SUFFIXES):
        if column in performance:
            table[column] = performance[column]
    csv, summary = (Path(folder, f'{name}.{kind}') for kind in ('csv', 'json'))
    with replacing(csv) as temporary:
        table.to_csv(temporary, index=False)
    write_text(summary, json.dumps({'metrics': criteria_of(performance), 'k': performance['k'], 'b': performance['b'],
                                    'images': len(names), **about}, indent=2) + '\n')
    return [csv, summary]


def table(performance: dict) -> str:
    """The criteria of all heads as lines of text."""
    lines = [f'{"":12}' + ''.join(f'{name:>9}' for name in CRITERIA)]
    for suffix, head in zip(SUFFIXES, HEADS, strict=True):
        if CRITERIA[0] + suffix in performance:
            lines.append(f'{head:12}' + ''.join(f'{performance[name + suffix]:9.4f}' for name in CRITERIA))
    return '\n'.join(lines)
