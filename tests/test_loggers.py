"""Where the scalars of a run are logged: files and services, alone and together, in a resumed run."""
import csv
import importlib.util
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from conftest import SMALL
from mini import MINI, stop_at
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import main
from iqa_runtime.checkpoint import read_tensors
from iqa_training.log import Log
from iqa_training.loggers import LOGGERS
from iqa_training.options import TRAIN

pytestmark = pytest.mark.usefixtures('one_thread')
WORDS = [*SMALL, *MINI, '-bs', '4', '-e', '2']


def history() -> dict[str, list]:
    """tag -> rows of step and value, of the only run in the working directory, as its state holds them."""
    (state,) = Path().glob('checkpoints/*.state')
    return {tag: rows[:, :2].tolist() for tag, rows in read_tensors(state)['history'].items()}


def scalars_csv() -> dict[str, list]:
    """The same as scalars.csv holds it."""
    (file,) = Path().glob('runs/*/scalars.csv')
    found = {}
    with open(file, newline='') as lines:
        for row in csv.DictReader(lines):
            found.setdefault(row['tag'], []).append([int(row['step']), float(row['value'])])
    return found


def test_several_loggers_get_every_scalar_once_also_of_a_resumed_run(tiny, capsys, monkeypatch):
    words = [*tiny, *WORDS, '--logger', 'csv', 'tensorboard']
    stop_at(monkeypatch, 3)
    with pytest.raises(SystemExit):
        main.main(words)
    main.main([*words, '--resume', 'auto'])
    assert 'CSV and TensorBoard log in runs' in capsys.readouterr().out
    expected = history()
    assert [step for step, _ in expected['train/loss']] == list(range(1, 9))
    assert scalars_csv() == expected
    (log,) = (path for path in Path('runs').iterdir() if path.is_dir())
    events = EventAccumulator(str(log), size_guidance={'scalars': 0})
    events.Reload()
    assert set(events.Tags()['scalars']) == set(expected)
    for tag, rows in expected.items():
        assert [[e.step, pytest.approx(e.value)] for e in events.Scalars(tag)] == rows


def test_a_logger_changes_neither_the_run_nor_its_name(tiny):
    checkpoints = []
    for logger in ('tensorboard', 'csv'):
        main.main([*tiny, *WORDS, '--logger', logger])
        (path,) = Path('checkpoints').glob('*.pth')
        checkpoints.append((path.name, path.read_bytes()))
    assert checkpoints[0] == checkpoints[1]
    assert list(Path().glob('runs/*/scalars.csv'))
    assert not list(Path().glob('runs/*/events*'))  # those of the first run are not of this one


def test_every_logger_has_a_row_and_is_an_option():
    args = TRAIN.parse(['--logger', 'CSV', 'tensorboard'])
    assert args.logger == ['csv', 'tensorboard']
    assert args.changed() == {}
    assert {'tensorboard', 'csv', 'wandb', 'mlflow'} == set(LOGGERS)


@pytest.mark.parametrize('name', ['wandb', 'mlflow'])
def test_a_service_that_is_not_installed_is_named_before_anything_is_done(tiny, fails, monkeypatch, name):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, 'find_spec', lambda package: None if package == name else find_spec(package))
    error = fails(main.main, *tiny, *WORDS, '--logger', 'csv', name)
    assert f'--logger {name} needs the package {name}: pip install {name}' in error
    assert not Path('runs').exists()


@pytest.mark.parametrize(('words', 'message'), [(['tensorbord'], 'did you mean tensorboard?'),
                                                (['csv', 'csv'], '--logger csv is given twice')])
def test_mistakes(tiny, fails, words, message):
    assert message in fails(main.main, *tiny, *WORDS, '--logger', *words)


# Services, played by modules that keep what they are given

def service(monkeypatch, name: str, **functions) -> None:
    module = ModuleType(name)
    module.__spec__ = ModuleSpec(name, None)
    for function, value in functions.items():
        setattr(module, function, value)
    monkeypatch.setitem(sys.modules, name, module)


def test_weights_and_biases(tiny, monkeypatch):
    given, begun, ended = [], [], []
    service(monkeypatch, 'wandb', init=lambda **settings: begun.append(settings), log=given.append,
            define_metric=lambda *_, **__: None, finish=lambda: ended.append(len(given)))
    stop_at(monkeypatch, 5)
    with pytest.raises(SystemExit):
        main.main([*tiny, *WORDS, '--logger', 'wandb'])
    assert ended == [len(given)]
    given.clear()
    main.main([*tiny, *WORDS, '--logger', 'wandb', '--resume', 'auto'])
    found = {}
    for row in given:
        ((tag, value),) = ((key, value) for key, value in row.items() if key != 'step')
        found.setdefault(tag, []).append([row['step'], value])
    assert found == history()
    (name,) = (path.name for path in Path('runs').iterdir() if path.is_dir())
    assert [settings['name'] for settings in begun] == [name, name]
    assert begun[0]['config']['batch_size'] == 4


class Client:
    """An MLflow server that is down at first."""

    metrics, requests = [], 0

    def log_batch(self, run, metrics):
        assert run == 'the run'
        Client.requests += 1
        if Client.requests == 1:
            raise ConnectionError('the server is\ndown')
        assert len(metrics) <= 1000
        Client.metrics += metrics


def test_mlflow(tiny, monkeypatch, capsys):
    monkeypatch.setattr(Client, 'metrics', [])
    monkeypatch.setattr(Client, 'requests', 0)
    parameters, tags = {}, {}
    run = SimpleNamespace(info=SimpleNamespace(run_id='the run'))
    service(monkeypatch, 'mlflow', active_run=lambda: None, start_run=lambda: run, end_run=lambda: None,
            set_tag=tags.__setitem__, log_params=parameters.update, MlflowClient=Client,
            entities=SimpleNamespace(Metric=lambda *values: values))
    main.main([*tiny, *WORDS, '--logger', 'mlflow'])
    assert 'WARNING: --logger mlflow: the server is:' in capsys.readouterr().out
    found = {}
    for tag, value, milliseconds, step in Client.metrics:
        assert milliseconds > 1e12
        found.setdefault(tag, []).append([step, value])
    assert found == history()
    assert parameters['epochs'] == 2
    assert tags['mlflow.runName'].startswith('mini-')


def test_a_service_that_refuses_is_one_line(tiny, monkeypatch, fails):
    def refuse(**_):
        raise RuntimeError('no key:\nlog in')
    service(monkeypatch, 'wandb', init=refuse)
    assert 'error: --logger wandb: no key:\n' in fails(main.main, *tiny, *WORDS, '--logger', 'wandb')


def test_a_long_history_is_sent_in_parts(tmp_path, monkeypatch):
    monkeypatch.setattr(Client, 'metrics', [])
    monkeypatch.setattr(Client, 'requests', 1)
    run = SimpleNamespace(info=SimpleNamespace(run_id='the run'))
    service(monkeypatch, 'mlflow', active_run=lambda: run, end_run=lambda: None, MlflowClient=Client,
            set_tag=lambda *_: None, log_params=lambda *_: None, entities=SimpleNamespace(Metric=lambda *v: v))
    log = Log(tmp_path / 'run', ['mlflow'])
    log.history = {'val/my set (2)/SROCC': [[step, .5, 1.7e9] for step in range(2500)]}
    with log.open({}, {}):
        pass
    assert [step for *_, step in Client.metrics] == list(range(2500))
    assert {tag for tag, *_ in Client.metrics} == {'val/my set _2_/SROCC'}
