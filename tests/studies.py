"""Outcomes of a study made by hand: results, splits and an info file as runs leave them, without training."""
import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from iqa_data.info import write_info
from iqa_results.write import write_results
from iqa_runtime.split_file import split_hash, write_split
from iqa_studies.outcome import Outcome
from IQAperformance import HeadPerformance, Performance

CONTENTS, EACH = 20, 4  # of a made data set


def make_set(name: str = 'own') -> tuple[Path, list[str], np.ndarray]:
    """Write an info file of images with contents in the working directory; return it, the names and the MOS."""
    rng = np.random.default_rng(7)
    names = [f'{name}-{content}-{i}.png' for content in range(CONTENTS) for i in range(EACH)]
    mos = rng.uniform(10, 90, len(names))
    contents = np.repeat(np.arange(1, CONTENTS + 1), EACH)
    file = Path(f'{name}.csv')
    write_info(file, names, mos, np.full(len(names), 10.), contents, np.empty((CONTENTS, 0), int))
    return file, names, mos


def split_of(names: list[str], number: int) -> dict[str, list[str]]:
    """Return a split by content: a fifth is test, another one val."""
    order = np.random.default_rng(number).permutation(CONTENTS)
    part = {content: 'test' if i < 4 else 'val' if i < 8 else 'train' for i, content in enumerate(order)}
    found = {'train': [], 'val': [], 'test': []}
    for i, name in enumerate(names):
        found[part[i // EACH]].append(name)
    return found


def write_outcome(setting: str, number: int, scores: np.ndarray, data=None, part: str = 'test', seed: int = 0,
                  trained_on: str = 'own') -> Outcome:
    """Write the results and the log of a run of a setting on a split, with scores of all images of the set."""
    file, names, mos = data or make_set()
    split = split_of([name.replace(file.stem, trained_on, 1) for name in names], number)
    place = {name: i for i, name in enumerate(names)}
    tested = names if part == 'all' else split[part]
    rows = [place[name] for name in tested]
    pq, sq = scores[rows], mos[rows]
    run = f'{"".join(filter(str.isalnum, setting))}-{trained_on}-{number}-{seed}'
    whose = f'{run}-on-{file.stem}' if part == 'all' else run
    performance = Performance(sq, np.full(len(sq), 10.), (HeadPerformance.of(pq / 100, sq, k=100.),))
    result = write_results('results', whose, tested, performance, {
        'run_name': run, 'dataset': file.stem, 'trained_on': trained_on, 'part': part, 'split_hash': split_hash(split),
        'options': {'dataset': f'{trained_on}.csv', 'batch_size': 8, 'exp_id': number},
        'parameters': {'trainable': 1200, 'plain': 1500}, 'versions': {'torch': '2.0'}})[1]
    write_split(Path('runs', run, 'split.csv'), split)
    return Outcome(setting, str(number), seed, trained_on, file.stem, result, Path('runs', run))


def outcomes(noises: dict[str, float], splits: int = 3, **more) -> list[Outcome]:
    """Return outcomes of settings with so much noise in their scores, on several splits."""
    data = make_set()
    found = []
    for k, (setting, noise) in enumerate(noises.items()):
        for number in range(splits):
            error = np.random.default_rng([k, number]).normal(0, noise, len(data[2]))
            found.append(write_outcome(setting, number, data[2] + error, data, **more))
    return found


def others(setting: str, of: list[Outcome], scores) -> list[Outcome]:
    """Return outcomes of predictions that were made elsewhere, `scores(mos)`, of the images of other outcomes."""
    found = []
    for outcome in of:
        table = outcome.predictions()
        mos, pq = table.mos.to_numpy(), np.asarray(scores(table.mos.to_numpy()), float)
        performance = Performance(mos, mos * 0, (HeadPerformance.of(pq, mos),))
        result = write_results('predictions', f'other-{outcome.split}', table.image.tolist(), performance, {
            'dataset': outcome.tested_on, 'part': 'test', 'options': {}, 'run_name': setting})[1]
        found.append(replace(outcome, setting=setting, seed=0, trained_on='', result=result, log=None))
    return found


def tampered(path: Path, **changes) -> None:
    """Change values of a JSON file; those of a dictionary are changed in it."""
    content = json.loads(path.read_text())
    for name, value in changes.items():
        content[name] = {**content[name], **value} if isinstance(value, dict) else value
    path.write_text(json.dumps(content))
