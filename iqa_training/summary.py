"""Summarise a run beside its log: a picture of its learning curves, and a page that works offline.

Everything comes from the run's files: options.json and the scalars of its log, its checkpoint, and the table of its
results. A summary can therefore be written again, also for a run that is still training or was stopped.
"""
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from iqa_results import page
from iqa_results.charts import SERIES, THEME, Panel, Scatter, png, svg
from iqa_results.curves import read_scalars
from iqa_results.read import Predictions, read_predictions
from iqa_results.table_formats import places
from iqa_runtime.checkpoint import load_checkpoint, sets_in
from iqa_runtime.checks import checked_value, dict_of, plain
from iqa_runtime.errors import UserError, one_line
from iqa_runtime.files import replacing, write_text
from iqa_runtime.names import PARTS
from iqa_runtime.option_values import shown, words_of
from iqa_runtime.options import Options
from iqa_runtime.recipes import options_of_run
from iqa_training.naming import checkpoint_file, log_name
from iqa_training.options import TRAIN
from iqa_training.run import duration_in_words
from IQAperformance import CRITERIA, criterion_title

TEMPLATE = Path(__file__).parent / 'templates/summary.html'
PAGE, PICTURE = 'summary.html', 'curves.png'
EXTREMES = 8  # images of the smallest and of the largest errors that are listed
History = Mapping[str, list]  # tag -> rows of step, value, time


def summarise(args: Options, history: History | None = None) -> list[Path]:
    """Write the page and the picture of the run that the options name; return their paths.

    Args:
        args: options of main.py.
        history: scalars of the log; None: they are read from the log.
    """
    folder = Path(args.log_dir, log_name(args))
    file = folder / 'options.json'
    if not file.is_file():
        raise UserError(f'no log of a run with these options: {folder}; train it with main.py, or give '
                        '--trained_model_file and --log_dir')
    options = checked_value(file, 'options', dict_of(plain), options_of_run(file))
    if history is None:
        history = {tag: [(step, value, seconds) for seconds, step, value in rows]
                   for tag, rows in read_scalars(folder).items()}
    checkpoint = load_checkpoint(checkpoint_file(args)) if checkpoint_file(args).is_file() else {}
    table = Path(args.result_dir, f'{folder.name}.csv')
    results = read_predictions(table) if checkpoint.get('finished') and table.is_file() else None
    panels = panels_of(history, options, checkpoint)
    picture, page_file = folder / PICTURE, folder / PAGE
    if panels:
        with replacing(picture) as temporary:
            temporary.write_bytes(png(panels))
    write_text(page_file, page_of(folder.name, options, checkpoint, panels, results, duration(history)))
    return [page_file, picture] if panels else [page_file]


def summarise_if_possible(args: Options, history: History) -> None:
    """Write the summary of a finished run; print a warning if that fails, since the run is complete without it."""
    try:
        print(f'Summary: {summarise(args, history)[0]}')
    except Exception as error:  # matplotlib, Jinja2 and the disk raise many kinds
        print(f'WARNING: no summary is written ({type(error).__name__}: {one_line(str(error))}); the run is complete, '
              'and --summary writes it', flush=True)


def extremes(results: Predictions) -> dict[str, list[tuple[str, str, str]]]:
    """Return {title: rows of image, MOS, score} of the images with the smallest and the largest errors."""
    order = np.argsort(np.abs(results.pq - results.mos), kind='stable')
    chosen = {'Best predicted': order[:EXTREMES], 'Worst predicted': order[::-1][:EXTREMES]}
    return {title: [(results.names[i], f'{results.mos[i]:.4g}', f'{results.pq[i]:.4g}') for i in rows]
            for title, rows in chosen.items()}


def duration(history: History) -> str:
    """Return the time from the first iteration of a run to its last scalar, in words; '' if nothing is logged."""
    times = [seconds for rows in history.values() for _, _, seconds in rows]
    return duration_in_words(max(times) - min(times)) if times else ''


def panels_of(history: History, options: Mapping, checkpoint: Mapping) -> list[Panel]:
    """Return the learning curves of a run: the loss, the correlations and the error that were logged."""
    def curve(tag: str, magnitude: bool = False) -> tuple[np.ndarray, np.ndarray]:
        rows = np.array(history[tag], float).reshape(-1, 3)
        return rows[:, 0], np.abs(rows[:, 1]) if magnitude else rows[:, 1]

    def of_parts(criteria: Sequence[str]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Return the criteria of val, and the first of them for each other part."""
        found = {}
        for tag in sorted(history, key=lambda tag: tag.partition('/')[0] != 'val'):
            part, _, rest = tag.partition('/')
            data, _, criterion = rest.rpartition('/')
            if part in PARTS and criterion in (criteria if part == 'val' else criteria[:1]):
                whose = f'{data} {part}' if 'sets' in checkpoint else part
                found[f'{whose} {criterion_title(criterion)}'] = curve(tag, CRITERIA[criterion].correlation)
        return dict(list(found.items())[:len(SERIES)])

    unit = 'iteration' if options.get('val_every') else 'epoch'
    best = checkpoint.get('epoch') if unit == 'epoch' else None
    panels = []
    if 'train/loss' in history:
        panels.append(Panel('Training loss', 'iteration', 'loss', {'loss': curve('train/loss')}, smooth=True))
    for title, y, correlation in (('Correlation with MOS', 'correlation', True),
                                  ('Error in MOS units', 'error', False)):
        curves = of_parts([name for name, criterion in CRITERIA.items() if criterion.correlation == correlation])
        if curves:
            panels.append(Panel(title, unit, y if len(curves) > 1 else next(iter(curves)), curves, best))
    return panels


def metric_rows(checkpoint: Mapping) -> list[tuple[str, list[str]]]:
    """Return rows of the table of metrics: the part, and each criterion as text."""
    def cell(value: float | None, interval: Sequence[float] | None) -> str:
        digits = places(*sorted(interval)) if interval else 4
        return '-' if value is None or not np.isfinite(value) else f'{abs(value):.{digits}f}'

    def ends(interval: Sequence[float] | None) -> str:
        return ' – '.join(cell(end, interval) for end in sorted(interval, key=abs)) if interval else '-'

    rows = []
    for data, one in sets_in(checkpoint).items():
        for part in (part for part in PARTS if part in one.get('metrics', {})):
            title, intervals = ' '.join(filter(None, [data, part])), one.get('intervals', {}).get(part, {})
            rows.append((title, [cell(one['metrics'][part].get(name), intervals.get(name)) for name in CRITERIA]))
            if intervals:
                rows.append((f'{title}, 95 % interval', [ends(intervals.get(name)) for name in CRITERIA]))
    return rows


def uncertainty_of(checkpoint: Mapping) -> str:
    """Return the sharpness of each part in words, of a network that predicts distributions; '' for others."""
    found = {part: metrics.get('sharpness') for part, metrics in checkpoint.get('metrics', {}).items()}
    return ', '.join(f'{part} {value:.4g}' for part, value in found.items() if isinstance(value, float))


def page_of(name: str, options: Mapping, checkpoint: Mapping, panels: list[Panel], results: Predictions | None,
            took: str) -> str:
    """Return the page; Jinja2 escapes all text in it."""
    from markupsafe import Markup
    changed = {option: value for option, value in options.items() if value != TRAIN.defaults.get(option)}
    return page.rendered(
        TEMPLATE, title=name, theme=Markup(THEME), charts=[(panel.title, Markup(svg(panel))) for panel in panels],
        marked=any(panel.mark is not None for panel in panels),
        scatter=Markup(svg(Scatter(results.mos, results.pq), 3.8, 3.6)) if results else '',
        images=len(results.mos) if results else 0, extremes=extremes(results) if results else {},
        tested='test' if 'test' in checkpoint.get('split', {}) else 'val', took=took,
        made_with=', '.join(f'{code} {number}' for code, number in checkpoint.get('versions', {}).items()),
        criteria=list(map(criterion_title, CRITERIA)),
        metrics=metric_rows(checkpoint), uncertainty=uncertainty_of(checkpoint),
        epoch=checkpoint.get('epoch'), finished=checkpoint.get('finished', False),
        epochs=options.get('epochs'), dataset=checkpoint.get('dataset', options.get('dataset')),
        split={part: sum(len(one.get('split', {}).get(part, ())) for one in sets_in(checkpoint).values())
               for part in checkpoint.get('split', {})},
        split_hash=checkpoint.get('split_hash'), mos=None if 'sets' in checkpoint else checkpoint.get('mos'),
        command=['python main.py', *(shlex.join(words_of({option: value})) for option, value in changed.items())],
        changed={option: option_in_words(value) for option, value in changed.items()},
        others={option: option_in_words(value) for option, value in options.items() if option not in changed})


def option_in_words(value) -> str:
    """Return the value of an option as the page shows it."""
    return {None: '-', True: 'on', False: 'off'}[value] if value is None or isinstance(value, bool) else shown(value)
