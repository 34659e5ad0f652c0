"""The house: imports run down, every table can be walked, every recipe parses."""
import ast
import subprocess
import sys

import pytest
import torch
from conftest import ROOT
from PIL import Image

from iqa_data.augmentation import AUGMENTATIONS, Augmentation
from iqa_data.datasets import DATASETS
from iqa_data.splits import SPLITS
from iqa_data.transforms import FILTERS
from iqa_losses import LOSSES
from iqa_networks.normalise import NORMALISATIONS
from iqa_runtime.recipes import FOLDER
from iqa_runtime.variants import OWN
from iqa_training.optimizers import OPTIMIZERS
from iqa_training.options import TRAIN
from iqa_training.record import VAL_CRITERIA
from iqa_training.schedules import SCHEDULES
from IQAmodel import NETWORKS, create_model
from IQAperformance import CRITERIA

FLOORS = [  # a room imports none above it
    {'iqa_runtime'}, {'iqa_networks', 'iqa_losses'}, {'iqa_data', 'IQAmodel', 'IQAloss', 'IQAperformance'},
    {'IQAdataset', 'modified_ignite_engine', 'iqa_results'}, {'iqa_training'}, {'iqa_scoring'}, {'iqa_studies'},
    {'results_in_the_paper'}, {'test_dataset', 'test_demo', 'data', 'hubconf'}, {'main'}]
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
# what scoring may read; a card describes a checkpoint, which scoring writes too
OF_TRAINING = {'iqa_training', 'iqa_training.naming', 'iqa_training.options', 'iqa_training.card'}


def imports(path, nested: bool) -> set[str]:
    """Modules that a file imports at its top, or with `nested` anywhere."""
    tree = ast.parse(path.read_text())
    nodes = list(ast.walk(tree)) if nested else tree.body
    return {node.module for node in nodes if isinstance(node, ast.ImportFrom)} | {
        alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}


@pytest.mark.parametrize('room', sorted(FLOOR))
def test_imports_run_down(room):
    files = [ROOT / f'{room}.py'] if (ROOT / f'{room}.py').exists() else list((ROOT / room).rglob('*.py'))
    for file in files:
        for module in imports(file, nested=False):
            to = module.removeprefix('linearity_iqa.').split('.')[0]
            assert to == room or FLOOR.get(to, -1) < FLOOR[room], f'{file.name} imports {module}'
        if room == 'iqa_scoring':
            others = {module for module in imports(file, nested=True) if module.startswith('iqa_training')}
            assert others <= OF_TRAINING, file.name
        if room != 'results_in_the_paper':
            assert not any(module.startswith('results_in_the_paper') for module in imports(file, nested=True))


AFTER_EACH = """
import sys
for program in list(sys.argv[1:]):
    exec(program, {})
    print('\\nloaded', *sys.modules)
    for name in [name for name in sys.modules if name.startswith(('IQA', 'iqa_', 'test_'))]:
        del sys.modules[name]
"""


def loaded_by(*programs: str) -> list[set[str]]:
    """Modules that one fresh interpreter has after each of several programs; other packages' stay for the next."""
    found = subprocess.run([sys.executable, '-c', AFTER_EACH, *programs], cwd=ROOT, check=True, capture_output=True,
                           text=True)
    loaded = [set(line.split()[1:]) for line in found.stdout.splitlines() if line.startswith('loaded ')]
    assert len(loaded) == len(programs)
    return loaded


def test_what_is_imported_alone_needs_little_more():
    losses, network, scoring = loaded_by('import IQAloss', 'import IQAmodel; IQAmodel.create_model("resnet18")',
                                         'import test_demo')
    assert not {module for module in losses if module.split('.')[0] in ('ignite', 'scipy', 'PIL')}
    assert not network & {'ignite', 'h5py', 'pandas', 'scipy', 'tensorboard', 'IQAdataset', 'iqa_data', 'iqa_training',
                          'iqa_scoring', 'timm'}
    assert not scoring & {'tensorboard', 'IQAloss', 'modified_ignite_engine', 'iqa_training.run',
                          'iqa_training.schedules', 'iqa_training.optimizers', 'matplotlib'}


SCRIPTS = ['main', 'test_dataset', 'test_demo', 'iqa_scoring.export', 'iqa_scoring.publish', 'data.check',
           'iqa_studies.check', 'results_in_the_paper.reproduce']
HELP = ('import contextlib, runpy, sys\nwith contextlib.suppress(SystemExit):\n'
        '    sys.argv[:] = ["x", "--help"]\n    runpy.run_module("{}", run_name="__main__")')


def test_help_does_not_load_torch():
    for script, loaded in zip(SCRIPTS, loaded_by(*map(HELP.format, SCRIPTS)), strict=True):
        assert not loaded & {'torch', 'pandas', 'matplotlib', 'ignite', 'scipy', 'tensorboard'}, script


# Tables

@pytest.mark.parametrize('name', NETWORKS)
def test_every_network_keeps_its_contract(name):
    with torch.device('meta'):
        network = create_model(name)
    assert network.inputs in (1, 2)
    assert network.heads
    assert network.side is None or network.side > 0
    assert network.normalise in NORMALISATIONS
    assert network.backbone is None or isinstance(network.backbone, torch.nn.Module)
    assert set(NETWORKS[name].options()) <= TRAIN.names()
    assert NETWORKS[name].system


@pytest.mark.parametrize('table', [LOSSES, NETWORKS, AUGMENTATIONS, SCHEDULES, OPTIMIZERS],
                         ids=lambda table: table.option)
def test_what_is_read_in_the_source_is_what_python_sees(table):
    """Flags come from the source, which --help reads without importing it; the rows come from the functions."""
    taken = {}
    for row in table.values():
        for option, default in row.options().items():
            taken.setdefault(option, []).append(tuple(default) if isinstance(default, list) else default)
    assert set(taken) == set(table.parameters) <= TRAIN.names()
    for option, parameter in table.parameters.items():
        assert parameter.about, option
        if parameter.default is not OWN:
            assert set(taken[option]) == {parameter.default}, option
        assert table.unused(TRAIN.defaults) <= TRAIN.names()


@pytest.mark.parametrize('name', AUGMENTATIONS)
def test_every_augmentation_changes_a_pair_alike(name):
    image = Image.linear_gradient('L').convert('RGB')
    first, second = Augmentation((name,), crop_size_h=100, crop_size_w=100)(image, image)
    assert first.tobytes() == second.tobytes()


@pytest.mark.parametrize('name', FILTERS)
def test_every_filter_resizes(name):
    assert FILTERS[name](Image.new('RGB', (9, 7), 'red'), (3, 4)).size == (3, 4)


def test_every_criterion_and_data_set_is_complete():
    performance = {name + head: .5 for name in CRITERIA for head in ('', '1', '2')} | {'loss': 1.}
    for criterion in VAL_CRITERIA.values():
        assert isinstance(criterion(performance), float)
    for name in (*DATASETS, *SPLITS):
        assert name == name.strip()


@pytest.mark.parametrize('path', sorted(FOLDER.glob('*.txt')), ids=lambda path: path.stem)
def test_every_recipe_parses_and_says_what_it_is(path):
    args = TRAIN.parse(['--recipe', path.stem])
    assert args.architecture in NETWORKS or args.architecture.startswith('timm/')
    assert path.read_text().startswith('# ')
