"""Write the report of a study: its tables, its figures, and one HTML page that needs no network.

The files: NAME.csv, NAME.md, NAME.tex (booktabs) of each table of study_tables.TABLES; curves and
critical-difference as PDF and PNG; study.html with all of them; outcomes.json, the list that iqa_studies/check.py
reads. The page is made of templates/study.html; the page of a run links to the run's own files.
"""
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from urllib.parse import quote

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure

from iqa_results import figures
from iqa_results import statistics as st
from iqa_results.charts import DASHES, INK, SERIES, THEME, Scatter, svg
from iqa_results.curves import Curve, as_curve
from iqa_results.mapping import NoFitError, mapped
from iqa_results.page import data_uri, svg_uri, write_page
from iqa_results.table_formats import SUFFIXES, render
from iqa_runtime.checks import json_text
from iqa_runtime.errors import UserError
from iqa_runtime.files import write_text
from iqa_scoring.report import THUMBNAIL
from iqa_scoring.stream import Preprocess, Reader
from iqa_studies import cost
from iqa_studies.choosing import Choice
from iqa_studies.honesty import check_outcome
from iqa_studies.outcome import Outcome
from iqa_studies.published import HEADER, Comparison
from iqa_studies.study_groups import Grouping
from iqa_studies.study_tables import MAPPED, TABLES, Findings, StudyTable, over_units

STYLES = ('csv', 'markdown', 'latex')
COLOURS = (*SERIES, INK)
PLAIN = {'text.parse_math': False}  # of matplotlib: a name may have a $
PIXELS = 130  # of an inch of a figure on the page
MOST_PANELS, MOST_PAIRS, MOST_IMAGES = 8, 4, 6  # of scatter plots; of settings side by side, and images of a pair
MOST_BANDS = 6  # settings whose curves have intervals: more would hide one another


def write_study_report(study_title: str, outcomes: Sequence[Outcome], folder: Path,
                       images: Mapping[str, Path] | None = None, beside: Sequence[Comparison] = (),
                       choices: Sequence[Choice] = (), note: str = '', groupings: Sequence[Grouping] = (),
                       thumbnails: bool = True) -> dict[str, StudyTable]:
    """Write the files of a study's report (see the module) into a folder; return its tables by name.

    Args:
        study_title: title of the page.
        outcomes: the runs, any number of them.
        images: data set as tested -> folder of its images (default: the data set's own), for thumbnails.
        beside: our numbers beside published ones.
        choices: the values that were chosen by validation.
        note: what the page says of the study.
        groupings: the kinds of groups in which the tested images are evaluated.
        thumbnails: whether the page shows images of the data sets.

    Raises UserError if the numbers of a run do not follow from its predictions, or its split is not honest.
    """
    for outcome in outcomes:
        if wrong := check_outcome(outcome)[0]:
            raise UserError(f'{outcome.result}: {wrong[0]}')
    findings, folder = Findings(outcomes, groupings), Path(folder)
    tables = [table for table in (*(make(findings) for make in TABLES), published(findings, beside),
                                  chosen(findings, choices)) if table.rows]
    write_text(folder / 'outcomes.json', outcomes_json(outcomes, folder, groupings))
    for table in tables:
        for style in STYLES:
            write_text(folder / (table.name + SUFFIXES[style]), render(table.header, table.rows, style))
    drawn = drawings(findings)
    for name, (_, figure) in drawn.items():
        figures.save(figure, folder, name)
    with matplotlib.rc_context({**figures.STYLE, **PLAIN}):
        pictures = [(text, svg_uri(figure), PIXELS * figure.get_figwidth()) for text, figure in drawn.values()]
    with matplotlib.rc_context(PLAIN):
        plots = scatter_plots(findings)
    write_page(folder / 'study.html', Path(__file__).parent / 'templates' / 'study.html', title=study_title, note=note,
               tables=tables, figures=pictures, theme=Markup(THEME),
               scatter=[(text, Markup(chart)) for text, chart in plots],
               pairs=disagreements(findings, images or {}, thumbnails),
               runs=[run_card(outcome, folder) for outcome in outcomes],
               settings=len(set(findings.runs.setting)))
    return {table.name: table for table in tables}


def published(findings: Findings, rows: Sequence[Comparison]) -> StudyTable:
    """Return the table of numbers beside published ones."""
    runs = [findings.runs[findings.runs.setting == row.setting].run.tolist() for row in rows]
    return StudyTable('published', 'Beside published numbers', HEADER, [row.words() for row in rows], runs,
                      'PASS: a correlation within the tolerance of the published one. Intervals are over images.')


def chosen(findings: Findings, choices: Sequence[Choice]) -> StudyTable:
    """Return the table of the values that were chosen by validation."""
    labels, known = list(choices[0].trials) if choices else [], findings.runs
    runs = [known[(known.setting == choice.setting) & (known.trained == choice.trained_on)].run.tolist()
            for choice in choices]
    return StudyTable('chosen', 'Chosen by validation', ['trained on', 'setting', 'criterion', 'chosen', *labels],
                      [choice.row() for choice in choices], runs,
                      'The best epoch on the validation images of the first split, with the first seed; the value is '
                      'then fixed for all. (An end): a value beyond the grid may be better.')


def outcomes_json(outcomes: Sequence[Outcome], folder: Path, groupings: Sequence[Grouping] = ()) -> str:
    """Return the outcomes, and the kinds of groups, as JSON, their files relative to the folder."""
    rows = [{name: os.path.relpath(value, folder) if isinstance(value, Path) else value
             for name, value in asdict(outcome).items()} for outcome in outcomes]
    kinds = {'groupings': [grouping.stored(folder) for grouping in groupings]} if groupings else {}
    return json_text({'outcomes': rows, **kinds}, indent=2) + '\n'


def run_card(outcome: Outcome, folder: Path) -> dict:
    """Return the fields that the page shows of a run: its options, versions, and links relative to the folder."""
    links = {name: quote(os.path.relpath(path, folder).replace(os.sep, '/')) for name, path in (
        ('result', outcome.result), ('predictions', outcome.result.with_suffix('.csv')), ('log', outcome.log),
        ('checkpoint', outcome.checkpoint)) if path is not None}
    return {'setting': outcome.setting, 'links': links, 'options': outcome.options, 'versions': outcome.versions,
            'split_hash': outcome.split_hash, 'seed': outcome.seed, 'split': outcome.split}


# Figures

def drawings(findings: Findings) -> dict[str, tuple[str, Figure]]:
    """Return {name: (caption, figure)} of what can be drawn."""
    found, styles = {}, styles_of(dict.fromkeys(findings.runs.setting))
    with matplotlib.rc_context(PLAIN):
        curves = validation_curves(findings)
        if any(curves.values()):
            text = ('Validation SROCC over epochs, mean of the runs of a setting; of few settings with 3 runs or more, '
                    'the 95 % interval of the mean.')
            found['curves'] = (text, figures.draw_panels(
                curves, {name: styles[name] for name in dict.fromkeys(n for some in curves.values() for n in some)},
                figures.PAGE, 2.6, alike=False, label='validation SROCC'))
        for i, ((trained, tested), ranking, names) in enumerate(rankings(findings)):
            text = (f'Mean ranks by SROCC over splits, trained on {trained}, tested on {tested}: Friedman p '
                    f'{ranking.p:.3g}. A bar joins settings that do not differ (Nemenyi, .05): those whose ranks are '
                    f'less than {ranking.critical:.1f} apart, of at most {len(names) - 1}.')
            found[f'critical-difference{i or ""}'] = (text, figures.draw_critical_difference(
                names, ranking.ranks, ranking.critical))
    return found


def styles_of(settings: Iterable[str]) -> dict[str, dict]:
    """Return colour and dashes of each setting's curve: of two that coincide both are seen; 28 pairs differ."""
    return {setting: {'color': COLOURS[i % len(COLOURS)], 'linestyle': DASHES[i % len(DASHES)]}
            for i, setting in enumerate(settings)}


def validation_curves(findings: Findings) -> dict[str, dict[str, Curve]]:
    """Return {data set trained on: {setting: mean curve of validation SROCC}}, up to the shortest run's end.

    The curves of up to MOST_BANDS settings have the interval of the mean over the runs.
    """
    logs = {}
    for outcome in findings.outcomes:
        if outcome.log is not None:
            logs.setdefault((outcome.trained_on, outcome.setting), {})[outcome.log] = outcome
    few = len({setting for _, setting in logs}) <= MOST_BANDS
    curves: dict[str, dict[str, Curve]] = {}
    for (trained, setting), some in logs.items():
        rows = [rows for rows in (cost.validation(log) for log in some) if len(rows)]
        if rows:
            length = min(map(len, rows))
            runs = np.stack([one[:length] for one in rows])
            curve = as_curve(*runs.mean(0).T)
            if few:
                curve = curve._replace(band=interval_of_mean(runs[:, :len(curve.values), 1]))
            curves.setdefault(trained, {})[setting] = curve
    return curves


def interval_of_mean(values: np.ndarray) -> np.ndarray | None:
    """Return the ends of the interval of the mean over runs, (2, epochs), of SROCC (runs, epochs); None if unknown."""
    spreads = [st.spread(column, 'correlation') for column in values.T]
    ends = np.array([[one.low for one in spreads], [one.high for one in spreads]])
    return ends if np.isfinite(ends).all() else None


def scatter_plots(findings: Findings) -> list[tuple[str, str]]:
    """Return the caption and the SVG of score against MOS, for the first run of each setting."""
    found = []
    for (tested, setting), runs in list(findings.runs.groupby(['tested', 'setting'], sort=False))[:MOST_PANELS]:
        row, (mos, score) = runs.iloc[0], findings.scores[runs.run.iloc[0]].to_numpy().T
        if len(mos):
            chart = Scatter(mos, score if row.trained else _on_mos(score, mos), setting)
            found.append((f'{setting} on {tested}, split {row["split"]}: SROCC {row.SROCC:.3f}', svg(chart, 3.2, 3)))
    return found


def rankings(findings: Findings) -> list[tuple[tuple[str, str], st.Ranking, list[str]]]:
    """Return ((trained, tested), mean ranks, settings) where three settings or more share two splits or more."""
    found = []
    for key, some in findings.groups():
        values = {setting: over_units(rows, 'SROCC').dropna() for setting, rows in some.items()}
        shared = sorted(set.intersection(*(set(one.index) for one in values.values())))
        if len(values) > 2 and len(shared) > 1:
            table = np.stack([one.loc[shared].to_numpy() for one in values.values()], 1)
            found.append((key, st.nemenyi(table), list(values)))
    return found


# Images side by side

def disagreements(findings: Findings, folders: Mapping[str, Path], thumbnails: bool) -> list[dict]:
    """Return the images on which the best setting differs most from each other one, on the first set tested."""
    for _, some in findings.groups():
        best = sorted(some, key=lambda name: -np.nan_to_num(over_units(some[name], 'SROCC').median(), nan=-2))
        pairs = [(best[0], other, findings.pairs(some[best[0]], some[other])) for other in best[1:MOST_PAIRS + 1]]
        return [{'names': [a, b], 'images': _differing(findings, *runs[0], folders, thumbnails)}
                for a, b, runs in pairs if runs]
    return []


def _differing(findings: Findings, a: int, b: int, folders: Mapping[str, Path], thumbnails: bool) -> list[dict]:
    """Return the images whose scores, mapped to MOS, differ most between two runs."""
    mos, outcome = findings.scores[a].mos, findings.outcomes[a]
    scores = [_on_mos(findings.scores[run].score.to_numpy(), mos.to_numpy()) for run in (a, b)]
    order = np.argsort(-np.abs(scores[0] - scores[1]), kind='stable')[:MOST_IMAGES]
    folder = folders.get(outcome.tested_on) or cost.folder_of(outcome)
    read = Reader(Preprocess(), thumbnail=THUMBNAIL)
    return [{'name': mos.index[i], 'mos': mos.iloc[i], 'scores': [of_run[i] for of_run in scores],
             'thumbnail': _thumbnail(read, Path(folder, mos.index[i])) if thumbnails else ''} for i in order]


def _on_mos(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    try:
        return mapped(MAPPED, x, y)
    except NoFitError:
        return x


def _thumbnail(read: Reader, path: Path) -> str:
    """Return the address of a thumbnail; empty if the image is not there or cannot be read."""
    content = read(0, str(path)).thumbnail if path.is_file() else b''
    return data_uri('image/jpeg', content) if content else ''
