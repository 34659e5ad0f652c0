"""Write the page of a comparison of models: its tables, ROC curves of pairs of images, scores in the worst groups."""
from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import shorten

import numpy as np

from iqa_results.charts import SERIES, THEME, Panel, Scatter, svg
from iqa_results.comparison import Models, rising
from iqa_results.comparison_tables import Shown
from iqa_results.groups import grouped
from iqa_results.page import FOLDER, write_page
from iqa_results.pairs import Pairs, roc

TITLE = 50  # most characters of a chart's title
Plot = tuple[str, Panel | Scatter]  # caption and chart


def write_comparison(path: str | Path, tables: Sequence[Shown], plots: Sequence[Plot]) -> None:
    """Write tables and plots as a page (HTML) that needs no network."""
    import matplotlib  # slow to import, and a comparison without a page needs none
    from markupsafe import Markup
    with matplotlib.rc_context({'text.parse_math': False}):  # a name may have a $
        charts = [(text, Markup(svg(chart, 4.4, 3.6))) for text, chart in plots]
    write_page(path, FOLDER / 'comparison.html', title='Comparison of models', theme=Markup(THEME),
               tables=[table for table in tables if table.rows], plots=charts)


def roc_plots(models: Models, pairs: Pairs) -> list[Plot]:
    """Return the two ROC plots of Krasula et al. (2016): different or similar, better or worse; none without z."""
    if pairs.z is None:
        return []
    seen, first, second = pairs.different, {}, {}
    for label, model in _few(models).items():
        scores = pairs.of(rising(model))
        first[label] = roc(np.abs(scores), seen)
        signed = (np.sign(pairs.target) * scores)[seen]
        second[label] = roc(np.concatenate([signed, -signed]), np.arange(2 * len(signed)) < len(signed))
    return [(f'ROC curve of the {kind} analysis: {text}.',
             Panel(f'{kind} analysis', 'false positive rate', 'true positive rate', curves, whole=False))
            for kind, text, curves in (
                ('different/similar', 'pairs that people see to differ, found by |difference of scores|', first),
                ('better/worse', 'the better image of these pairs, found by the difference of scores', second))]


def worst_group_plots(models: Models, groups: Sequence[str], by: str) -> list[Plot]:
    """Return, for each model, its scores in the group where it agrees least with MOS."""
    found, plots = np.asarray(groups, object), []
    for label, model in _few(models).items():
        agreement = grouped(rising(model), model.mos, groups)
        group = agreement.worst('SROCC')
        if group is not None:
            inside = found == group
            plots.append((f'{label} is worst in the {by} {group}: SROCC {agreement.inside[group]["SROCC"]:.3f} on '
                          f'{inside.sum()} images.', Scatter(model.mos[inside], model.pq[inside],
                                                            shorten(f'{label}: {group}', TITLE, placeholder=' ...'))))
    return plots


def _few(models: Models) -> Mapping[str, np.ndarray]:
    """Return the first models, as many as there are colours."""
    return dict(list(models.items())[:len(SERIES)])
