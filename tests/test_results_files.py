"""Reading results, predictions and the original's .npy files; the tables and the t-test made of them."""
import json
import os
import pickle

import numpy as np
import pytest
from scipy import stats

from iqa_results import read as results
from iqa_runtime.errors import UserError
from iqa_studies.found import find
from iqa_studies.published import comparisons
from iqa_training.options import TRAIN
from results_in_the_paper import backbone_performance_plot, scatter_plots, sources, t_test, tables


def save(path, content) -> str:
    """Save as the original did: a dictionary in an array of objects."""
    np.save(path, content, allow_pickle=True)
    return str(path)


def recorded(n: int = 5) -> dict:
    mos = np.linspace(10, 90, n)
    return {'SROCC': np.float64(.9), 'sq': mos, 'sq_std': np.ones(n), 'pq': mos + 1, 'pq_before': mos[:, None],
            'k': [1., 2., 3.], 'b': [0, 0, 0]}


@pytest.mark.parametrize('core', ['numpy.core', 'numpy._core'])
def test_npy_of_old_and_new_numpy(tmp_path, core):
    """The module that numpy names for its arrays moved; files of both kinds are read."""
    content = pickle.dumps(np.array(recorded(), dtype=object), protocol=3)
    other = content.replace(b'cnumpy._core.multiarray', f'c{core}.multiarray'.encode())
    header = b"{'descr': '|O', 'fortran_order': False, 'shape': (), }".ljust(117) + b'\n'
    (tmp_path / 'x.npy').write_bytes(b'\x93NUMPY\x01\x00v\x00' + header + other)
    assert results.read_npy(tmp_path / 'x.npy')['k'] == [1, 2, 3]


def test_predictions_of_an_npy_file(tmp_path):
    found = results.read_predictions(save(tmp_path / 'x.npy', recorded()))
    assert found.names is None
    assert found.pq.tolist() == [11, 31, 51, 71, 91]
    assert results.read_predictions(tmp_path / 'x.npy', 'pq_before').pq.shape == (5,)


def test_recorded_predictions_give_their_metrics_back(shared):
    found = results.read_predictions(shared / 'paper/npy/CLIVE-Norm-in-Norm.npy')
    content = results.read_npy(shared / 'paper/npy/CLIVE-Norm-in-Norm.npy')
    assert stats.spearmanr(found.pq, found.mos)[0] == pytest.approx(content['SROCC'])
    assert np.mean((found.pq - found.mos) ** 2) ** .5 == pytest.approx(content['RMSE'])


class Payload:
    """What a malicious file holds: unpickling it would run a command."""

    def __init__(self, call, *arguments):
        self.call, self.arguments = call, arguments

    def __reduce__(self):
        return self.call, self.arguments


@pytest.mark.parametrize('where', ['value', 'key', 'in an array', 'alone'])
@pytest.mark.parametrize('call', [os.system, os.mkdir, eval, np.fromfile, np.load])
def test_a_malicious_npy_executes_nothing(tmp_path, call, where):
    proof = tmp_path / 'proof'
    code = {os.system: f'touch {proof}', eval: f'__import__("os").mkdir("{proof}")'}
    payload = Payload(call, code.get(call, str(proof)))
    content = {'value': {**recorded(), 'extra': payload}, 'key': {payload: 1}, 'alone': payload,
               'in an array': {**recorded(), 'extra': np.array([payload], dtype=object)}}[where]
    save(tmp_path / 'x.npy', content)
    with pytest.raises(UserError, match=r'x\.npy refused: it asks for .*; expected a dictionary of numbers'):
        results.read_npy(tmp_path / 'x.npy')
    assert not proof.exists()
    with open(tmp_path / 'x.npy', 'rb') as file:  # the payload itself is real
        np.lib.format.read_magic(file)
        np.lib.format.read_array_header_1_0(file)
        if call is os.mkdir and where == 'value':
            pickle.load(file)  # noqa: S301
            assert proof.exists()


@pytest.mark.parametrize(('content', 'message'), [
    ({**recorded(), 'extra': np.array(['a', None], dtype=object)}, 'numeric arrays'),
    ({**recorded(), 'extra': {'a': 1}}, 'numeric arrays'), ({1: 2.}, 'numeric arrays'), ([1, 2], 'numeric arrays'),
    ({'sq': np.ones(3)}, 'lacks sq_std, pq'), ({**recorded(), 'pq': np.ones(4)}, 'different lengths'),
    ({**recorded(), 'pq': np.full(5, np.nan)}, 'pq of image 1 is not a finite number'),
    ({**recorded(0)}, 'no images')])
def test_npy_files_of_something_else(tmp_path, content, message):
    with pytest.raises(UserError, match=message):
        results.read_predictions(save(tmp_path / 'x.npy', content))


def test_npy_files_that_are_not(tmp_path):
    np.save(tmp_path / 'numbers.npy', np.ones(3))
    whole = (tmp_path / 'x.npy')
    save(whole, recorded())
    (tmp_path / 'short.npy').write_bytes(whole.read_bytes()[:200])
    (tmp_path / 'text.npy').write_text('hello')
    (tmp_path / 'empty.npy').write_text('')
    for name, message in (('numbers', 'refused: an array of float64'), ('short', 'damaged'), ('text', 'damaged'),
                          ('empty', 'damaged'), ('none', 'not found')):
        with pytest.raises(UserError, match=message) as error:
            results.read_predictions(tmp_path / f'{name}.npy')
        assert '\n' not in str(error.value)


def test_figure7_refuses_a_malicious_file(tmp_path, fails):
    save(tmp_path / 'KonIQ-10k-MAE.npy', Payload(os.mkdir, str(tmp_path / 'proof')))
    assert 'KonIQ-10k-MAE.npy refused' in fails(scatter_plots.main, '--npy_dir', tmp_path, '--out_dir', tmp_path)
    assert not (tmp_path / 'proof').exists()


@pytest.mark.parametrize(('text', 'message'), [
    ('', 'it has: none'), ('name,mos,std\na,1,1\n', 'lacks the column pq'), ('name,mos,std,pq\n', 'no images'),
    ('name,mos,std,pq\na,1,1,x\n', "row 2: the pq 'x' is not a finite number"),
    ('name,mos,std,pq\na,1,1,2\nb,1,1,\n', 'row 3: the pq is empty'),
    ('name,mos,std,pq\na,1,1,2\na,1,1,2\n', 'row 3: a again, first in row 2'), (None, 'not found')])
def test_bad_predictions(tmp_path, text, message):
    if text is not None:
        (tmp_path / 'x.csv').write_text(text)
    with pytest.raises(UserError, match=message):
        results.read_predictions(tmp_path / 'x.csv')


def test_predictions_may_lack_the_std(tmp_path):
    (tmp_path / 'x.csv').write_text('name,mos,std,pq\n1,1,,2\n2,2,,3\n')
    found = results.read_predictions(tmp_path / 'x.csv')
    assert found.names == ['1', '2']
    assert np.isnan(found.std).all()


def write_result(folder, name: str, cell, data: str | None = None, **metrics) -> None:
    (folder / f'{name}.json').write_text(json.dumps(
        {'metrics': metrics, 'options': {name: cell.options[name] for name in TRAIN.names()},
         'dataset': data or cell.trained_on, 'part': 'all' if data else 'test'}))


def write_study(folder, study: str, **metrics) -> None:
    """Write results of all tests of a study."""
    for i, cell in enumerate(sources.planned(study)[1].cells):
        for data in (None, *cell.tests):
            write_result(folder, f'{i}{data or ""}', cell, data, **metrics)


def test_tables_show_paper_ours_and_difference(tmp_path, capsys):
    write_study(tmp_path, 'table2', SROCC=.94, PLCC=float('nan'))
    tables.main(['table2', '--result_dir', str(tmp_path), '--format', 'csv'])
    out = capsys.readouterr().out
    assert 'l,KonIQ-10k,0.937,0.940,+0.003,0.947,nan,-\n' in out
    assert "l + l',CLIVE,0.836,0.940,+0.104,0.848,nan,-\n" in out
    assert 'python' not in out


def test_what_is_not_known_is_never_a_number(tmp_path, capsys):
    tables.main(['--result_dir', str(tmp_path), '--out_dir', str(tmp_path / 'out')])
    out = capsys.readouterr().out
    assert 'python main.py --resize -arch resnet18 --p 2 --q 1\n' in out
    assert 'python main.py --resize --alpha 1 0.1\n' in out
    assert 'python main.py --resize -arch resnet50 --optimizer sgd -lr 0.01\n' in out
    known = {row.setting for row in comparisons(*sources.planned('table1')) if row.known is not None}
    assert known == {f'{name}, p 1, q 2' for name in ('ResNet-18', 'ResNet-34', 'ResNet-50', 'ResNeXt-101')}
    assert (tmp_path / 'out/tableA1.txt').read_text().count('not known') == 24
    assert {path.suffix for path in (tmp_path / 'out').glob('table1.*')} == {'.csv', '.md', '.tex', '.txt'}


@pytest.mark.parametrize('study', tables.SHOWN)
def test_every_cell_finds_its_own_result_and_no_other(tmp_path, study):
    cells = sources.planned(study)[1].cells
    write_study(tmp_path, study, SROCC=.9)
    found = results.read_results(tmp_path)
    for i, cell in enumerate(cells):
        for data in (cell.trained_on, *cell.tests):
            assert find(found, cell.options, data).path.stem == f'{i}{data if data != cell.trained_on else ""}'


def test_figures_6_and_7_from_our_results(tmp_path):
    write_study(tmp_path, 'figure7', SROCC=.9, PLCC=.9, RMSE=9.)
    lines = ''.join(f'{j},{j},1,{j + j % 3}\n' for j in range(20))
    for path in tmp_path.glob('*.json'):
        path.with_suffix('.csv').write_text('name,mos,std,pq\n' + lines)
    scatter_plots.main(['--result_dir', str(tmp_path), '--out_dir', str(tmp_path)])
    assert (tmp_path / 'figure7.pdf').exists()
    study, plan = sources.planned('figure6', None, results.read_results(tmp_path))
    figure = backbone_performance_plot.draw(comparisons(study, plan))
    assert sum(len(ax.patches) for ax in figure.axes) == 24 + 6


def test_a_missing_result_is_named_with_the_commands(tmp_path, fails):
    error = fails(scatter_plots.main, '--result_dir', tmp_path, '--out_dir', tmp_path)
    assert 'no result of MAE on KonIQ-10k; make it with: python main.py --resize --loss_type mae ' in error


@pytest.mark.parametrize('text', ['', '[]', '{"metrics": {}}',
                                  '{"metrics": 3, "options": {}, "dataset": "a", "part": "b"}'])
def test_bad_results(tmp_path, fails, text):
    (tmp_path / 'x.json').write_text(text)
    assert 'x.json: expected the results of a test' in fails(tables.main, '--result_dir', tmp_path)


def test_paired_t_test_is_that_of_scipy_on_the_splits_both_have():
    rng = np.random.default_rng(0)
    a, b = (dict(enumerate(rng.normal(.8, .02, 10))) for _ in range(2))
    t, p, n = t_test.paired(a, b)
    expected = stats.ttest_rel(list(a.values()), list(b.values()))
    assert (t, p, n) == (pytest.approx(expected.statistic), pytest.approx(expected.pvalue), 10)
    del a[3]
    b.pop(7)
    assert t_test.paired(a, b)[2] == 8
    assert np.isnan(t_test.paired({0: 1.}, {0: 2.})[0])
    assert np.isnan(t_test.paired(b, b)[0])
    assert t_test.paired({0: .5, 1: .75}, {0: .25, 1: .5})[:2] == (np.inf, 0)


def test_t_test_of_thirty_runs(tmp_path, capsys, fails):
    assert 'python main.py --dataset CLIVE --resize -arch resnet18 --loss_type mae' in fails(
        t_test.main, '--result_dir', tmp_path)
    rng = np.random.default_rng(0)
    for cell in sources.planned('t-test')[1].cells:
        i = sources.LOSSES.index(cell.setting)
        write_result(tmp_path, f'{cell.setting}{cell.split}', cell, PLCC=.7 + i / 20 + rng.normal(0, .01))
    t_test.main(['--result_dir', str(tmp_path)])
    out = capsys.readouterr().out
    assert 'Norm-in-Norm - MAE' in out
    assert 'missing' not in out
    (tmp_path / 'MSE4.json').unlink()
    t_test.main(['--result_dir', str(tmp_path)])
    command = 'python main.py --dataset CLIVE --resize -arch resnet18 --loss_type mse --exp_id 4\n'
    assert command in capsys.readouterr().out
