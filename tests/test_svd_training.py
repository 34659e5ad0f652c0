"""SVD-CNNIQA through the commands: recipes, pretrained files, every loss, resume, scoring, exports, mistakes."""
import json

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import make_tiny
from mini import MINI
from torch.testing import assert_close

import hubconf
import IQAmodel
import main
import test_dataset
import test_demo
from iqa_networks.adapted_layers import merge
from iqa_runtime.checkpoint import load_checkpoint, save_checkpoint
from iqa_scoring import export
from iqa_training.naming import checkpoint_file
from iqa_training.options import TRAIN
from iqa_training.record import Record
from IQAloss import LOSSES
from IQAmodel import create_model

RECIPES = {  # recipe -> what is frozen
    'cnniqa_agiqa': set(), 'svd_cnniqa_conv': {'conv1.weight', 'conv1.bias'},
    'svd_cnniqa_fc': {f'fc{i}.{tensor}' for i in (1, 2, 3) for tensor in ('weight', 'bias')},
    'svd_cnniqa_fc_published': {'fc1.weight', 'fc2.weight'},  # and fc3's, which is random
}
QUICK = ['--im_dir', 'tiny/images', '--dataset', 'demo', '--data_info', 'tiny/info.mat', '--device', 'cpu', '--no-pbar',
         '--num_workers', '0', '--cache', 'ram', '-cs_h', '24', '-cs_w', '24', '--target', '0', '100']
TRAINED = [*QUICK, '--recipe', 'svd_cnniqa_fc', '--pretrained', 'cnniqa.pth', '-lr', '1e-2', '-bs', '8',
           '--val_every', '2', '-e', '1']


@pytest.fixture(scope='module', autouse=True)
def folder(tmp_path_factory):
    """The working directory: the tiny data set, and cnniqa.pth, trained on it for an epoch."""
    folder = tmp_path_factory.mktemp('svd')
    make_tiny(folder / 'tiny')
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        trained('--recipe', 'cnniqa_koniq', *QUICK, '-rs_h', '48', '-rs_w', '64', '-e', '1').rename('cnniqa.pth')
        yield folder
    torch.set_num_threads(threads)


def trained(*words):
    """Train with these words of main.py; return the checkpoint's file."""
    main.main([*words])
    return checkpoint_file(TRAIN.parse(words))


@pytest.fixture(scope='module')
def checkpoint(folder):
    return str(trained(*TRAINED))


@pytest.mark.parametrize('recipe', RECIPES)
def test_recipes_train_what_they_say(recipe, capsys, folder):
    words = ['--recipe', recipe, *QUICK[:-3], '--pretrained', 'cnniqa.pth', '-e', '1']
    file = trained(*words)
    out, made = capsys.readouterr().out, load_checkpoint(file)
    start = load_checkpoint('cnniqa.pth')['model']
    assert 'Pretrained cnniqa.pth' in out
    published = recipe.endswith('published')
    assert made['target'] == {'shift': 0, 'scale': 100 if published else 5}
    assert ('MOS of 19 of 19 training images lies outside --target 0 5' in out) != published
    assert made['input']['normalise'] == 'none'
    assert {name for name, tensor in start.items() if torch.equal(made['model'][name], tensor)} == RECIPES[recipe]
    parameters = json.loads((folder / f'results/{file.stem}.json').read_text())['parameters']
    assert parameters['plain'] == 729801
    assert (f'{parameters["trainable"]:,} trainable parameters instead of 729,801' in out) == (recipe != 'cnniqa_agiqa')


def test_the_sum_of_all_losses_trains_the_singular_values():
    every = '+'.join(name for name, row in LOSSES.items() if row.needs() == ['y_pred', 'y'] and name != 'macs')
    made = load_checkpoint(trained(*TRAINED, '--loss_type', every))
    deltas = [tensor for name, tensor in made['model'].items() if name.endswith('delta')]
    assert len(deltas) == 3
    assert all(delta.abs().max() > 0 for delta in deltas)


def test_a_stopped_run_ends_bit_for_bit_as_if_it_had_not_been():
    words = [*TRAINED, '-e', '2', '--keep', '9', '--seed', '5']
    file = trained(*words)
    whole, states = load_checkpoint(file), sorted(file.parent.glob(f'{file.stem}.*.state'))
    for later in states[1:]:
        later.unlink()
    main.main([*words, '--resume', 'auto'])
    again = load_checkpoint(file)
    assert again['epoch'] == whole['epoch']
    assert all(torch.equal(again['model'][name], tensor) for name, tensor in whole['model'].items())


def test_scores_are_those_of_the_merged_network(checkpoint):
    image, content = 'tiny/images/00.png', load_checkpoint(checkpoint)
    network, plain = create_model('svd_cnniqa_fc'), create_model('cnniqa')
    network.load_state_dict(content['model'])
    plain.load_state_dict(merge(network))
    merged = {**content, 'model': plain.state_dict(), 'network': {'name': 'cnniqa', 'options': {}}}
    score = test_demo.main(['--img', image, '-modelfile', checkpoint])
    assert IQAmodel.load(merged).score(image) == pytest.approx(score, abs=1e-3)
    assert hubconf.linearity_iqa(checkpoint).score(image) == pytest.approx(score, abs=1e-6)
    tested = test_dataset.main(['-modelfile', checkpoint, '--part', 'all', '--im_dir', 'tiny/images', '--no-pbar'])
    assert tested.pq[0] == pytest.approx(score, abs=1e-3)


def test_exports_are_merged(checkpoint, folder):
    differences = export.main(['-modelfile', checkpoint, '--torch_export', 'out.pt2'])
    assert max(differences.values()) < 1e-3
    state = torch.export.load(folder / 'out.pt2').state_dict
    assert {name for name in state if 'fc1' in name} == {'network.fc1.weight', 'network.fc1.bias'}


def test_maps_reports_and_calibration(checkpoint, folder):
    words = ['-modelfile', checkpoint, '--no-pbar']
    test_demo.main(['--img', 'tiny/images/00.png', 'tiny/images/01.png', *words, '--map', 'maps'])
    assert len(list((folder / 'maps').glob('*.png'))) == 2
    test_demo.main(['--img', 'tiny/images', *words, '--report', 'out.html', '--csv', 'scores.csv'])
    scores = pd.read_csv('scores.csv')
    pd.DataFrame({'image': scores['name'], 'mos': 3 + 2 * scores['raw']}).to_csv('ratings.csv', index=False)
    test_demo.main(['--calibrate', 'ratings.csv', *words, '--out', 'mine.pth'])
    mine = load_checkpoint('mine.pth')
    assert mine['network']['name'] == 'svd_cnniqa_fc'
    assert (mine['k'][0], mine['b'][0]) == pytest.approx((2, 3), rel=1e-3)


def test_any_network_is_factored_by_a_pattern(capsys):
    words = [*QUICK, *MINI, '--weights', 'none', '--augmentation', 'crop', '-e', '1', '--debug', '--svd', 'dr?.0']
    made = load_checkpoint(trained(*words))
    assert '2 layers are factored (dr6.0, dr7.0): ' in capsys.readouterr().out
    assert made['network']['options']['svd'] == 'dr?.0'
    assert made['model']['dr6.0.delta'].shape == (8,)  # of the 8 channels that are pooled
    assert np.isfinite(test_demo.main(['--img', 'tiny/images/00.png', '-modelfile',
                                       str(checkpoint_file(TRAIN.parse(words)))]))


def test_of_equally_good_validations_the_first_is_kept_or_the_last():
    for later_wins, epoch in ((False, 1), (True, 3)):
        record = Record(lambda criteria: criteria['SROCC'], later_wins=later_wins)
        for i, value in enumerate((.5, .4, .5), 1):
            record.update({'SROCC': value}, i, i)
        assert record.epoch == epoch


def test_mistakes(fails, checkpoint, folder):
    words = [*QUICK, '--augmentation', 'crop', '-arch', 'svd_cnniqa_fc', '--loss_type', 'mse']
    cases = {
        '--svd x*: no linear layer or convolution has a matching name': [*words, '--svd', 'x*'],
        'cnniqa has no factored layers: --svd PATTERN': [*words, '-arch', 'cnniqa', '--svd_scale', '2'],
        'gone.pth: no such file': [*words, '--pretrained', 'gone.pth'],
        'other.pth: does not fit the network: it lacks fc1.weight': [*words, '--pretrained', 'other.pth'],
        '--svd_legacy_init needs --pretrained': [*words, '--svd_legacy_init'],
        '--dropout: --architecture resnet18 takes no such option': [*words, '-arch', 'resnet18', '--dropout', '.1'],
        '--weights imagenet: there are none of svd_cnniqa_fc': [*words, '--weights', 'imagenet'],
        '--crop_size_h 99 --crop_size_w 24 is larger than the smallest training image, 48x64':
            [*words, '--augmentation', 'crop', '-cs_h', '99'],
    }
    save_checkpoint('other.pth', {'model': create_model('asna_ranker').state_dict(), 'k': [1.], 'b': [0.]})
    for message, given in cases.items():
        assert message in fails(main.main, *given)
    content = load_checkpoint(checkpoint)
    content['model']['fc1.delta'] = torch.zeros(3)
    save_checkpoint('short.pth', content)
    error = fails(test_demo.main, '--img', 'tiny/images/00.png', '-modelfile', 'short.pth')
    assert 'short.pth: the weights are not those of this network' in error
    assert 'fc1.delta' in error


def test_training_values_are_those_of_whole_maps():
    torch.manual_seed(0)
    network = create_model('svd_cnniqa_conv', dropout=0.)
    flat = torch.zeros(2, 3, 20, 31)
    flat[1, :, 5:, 9:] = .7  # every window is one of many equal ones
    for images in (torch.rand(3, 3, 20, 31), flat, torch.rand(2, 3, 40, 40).to(memory_format=torch.channels_last)):
        found = []
        for whole in (False, True):
            x = images.clone().requires_grad_()
            score = (network.regress(network.extremes(network.conv1(x))) if whole else network(x))[0]
            network.zero_grad()
            score.sum().backward()
            found.append([score, x.grad, network.conv1.delta.grad.clone(), network.fc1.weight.grad.clone()])
        for ours, expected in zip(*found, strict=True):
            assert_close(ours, expected, rtol=1e-4, atol=1e-5)


def test_evaluation_keeps_the_maps_of_one_large_image():
    network, kept = create_model('cnniqa').eval(), []
    network.conv1.register_forward_hook(lambda layer, images, maps: kept.append(len(maps)))
    images = torch.rand(3, 3, 260, 256)
    with torch.no_grad():
        scores = network(images)[0]
    assert kept == [1, 1, 1]
    with torch.no_grad():
        whole = network.regress(network.extremes(network.conv1(images)))[0]
    assert_close(scores, whole)
