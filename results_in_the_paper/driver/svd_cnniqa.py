"""SVD-CNNIQA: the report's table, of CNNIQA fine-tuned on AGIQA-3K whole or by the singular values of its layers.

The report starts from pyiqa's CNNIQA of KonIQ-10k, whose file is not to be had any more. `--pretrained FILE` gives it,
or any other file of a CNNIQA; without it, the first stage trains one (recipes/cnniqa_koniq.txt). It does not say which
split it used; its code trains split 1 of the ten. `--splits 10` trains them all.
"""
import hashlib
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev

from iqa_runtime.errors import UserError
from iqa_scoring.results import metrics_of
from results_in_the_paper.driver.systems import Setting, Step, System
from results_in_the_paper.driver.verdicts import Row

METRICS = ('SROCC', 'PLCC', 'KROCC')
EPOCHS = (50, 100)
NAMES = {'cnniqa_agiqa': 'CNNIQA', 'svd_cnniqa_fc': 'SVD of fc1-3 (myiqa)', 'svd_cnniqa_conv': 'SVD of conv1 (myiqa2)'}
# The report's table: (recipe, epochs) -> METRICS
PUBLISHED = {
    ('cnniqa_agiqa', 50): (.5429, .6038, .3753), ('cnniqa_agiqa', 100): (.5696, .6305, .3968),
    ('svd_cnniqa_fc', 50): (.6173, .7912, .4371), ('svd_cnniqa_fc', 100): (.6254, .7959, .4434),
    ('svd_cnniqa_conv', 50): (.5677, .6870, .3908), ('svd_cnniqa_conv', 100): (.5677, .6870, .3908),
}
HYPERIQA = (.81371, .88019, .62619)  # the mean of ten splits, of a network that is not among ours
PYIQAS_FILE = 'e6f14c91'  # the SHA-256 of the report's CNNIQA_koniq10k-e6f14c91.pth begins so
TOLERANCE = .02  # the report's HyperIQA has a standard deviation of .011 over the splits


def svd_cnniqa(setting: Setting) -> System:
    """Return the runs of the report: pretraining, unless a file is given, and three networks at 50 and 100 epochs."""
    given = dict(setting.given)
    file = given.pop('pretrained', None)
    places = sorted({'im_dir', 'data_info'} & given.keys())
    if places and not file and 'dataset' not in given:
        raise UserError(f'--{places[0]}: svd_cnniqa trains on two data sets: link the folders KonIQ-10k and AGIQA-3K, '
                        'or give --pretrained')
    setting = replace(setting, given=given)
    first = [] if file else [setting.train('cnniqa_koniq')]
    start = file or str(first[0].checkpoint)
    runs = {(recipe, epochs): [setting.train(recipe, '-e', str(epochs), '--split_index', str(split),
                                             '--pretrained', start) for split in range(1, setting.splits + 1)]
            for recipe, epochs in PUBLISHED}
    reports = bool(file and is_the_reports(file) and not given.keys() - {'im_dir', 'device', 'pbar'})
    return System([first, [step for steps in runs.values() for step in steps]],
                  lambda: rows(setting, runs, '' if reports else 'shown, not judged'))


def rows(setting: Setting, runs: dict[tuple[str, int], list[Step]], why_not: str) -> list[Row]:
    """Return the report's table beside ours on split 1, and the mean of several splits."""
    table = []
    for (recipe, epochs), steps in runs.items():
        for metric, known in zip(METRICS, PUBLISHED[recipe, epochs], strict=True):
            label = f'{NAMES[recipe]}, {epochs} epochs'
            table.append(setting.row(label, metric, known, steps[0], why_not, TOLERANCE))
            values = [metrics[metric] for step in steps if (metrics := metrics_of(step.makes))]
            if len(values) > 1:
                table.append(Row(f'{label}, mean of {len(values)} splits, std {stdev(values):.3f},', metric, None,
                                 mean(values)))
    return table + [Row('HyperIQA (not ours), mean of 10 splits', metric, known, None)
                    for metric, known in zip(METRICS, HYPERIQA, strict=True)]


def is_the_reports(file: str) -> bool:
    """Return whether a pretrained file is the report's, by its SHA-256."""
    try:
        return hashlib.sha256(Path(file).read_bytes()).hexdigest().startswith(PYIQAS_FILE)
    except OSError as error:
        raise UserError(f'--pretrained {file}: {error.strerror}') from None
