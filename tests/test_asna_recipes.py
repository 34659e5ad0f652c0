"""ASNA's recipes: each published setting, as its table says it."""
import pytest

from iqa_runtime.recipes import FOLDER
from iqa_training.options import TRAIN
from IQAmodel import build_model

# name -> network, data set, --l2, --mse_factor, --spearman_factor, learning rate, epochs, epochs between decays
PUBLISHED = {
    'model1_pretrained': ('asna_simple_a', 'asna_pretrain', [0, 1e-2], .1, .1, 1e-4, 25, 10),
    'model1': ('asna_simple_a', 'PIPAL', [0, 1e-2], .1, .1, 1e-4, 30, 10),
    'model2_pretrained': ('asna_simple_b', 'asna_pretrain', [1e-6, 1e-4], .5, .1, 1e-4, 20, 10),
    'model2': ('asna_simple_b', 'PIPAL', [1e-6, 1e-4], .5, .1, 1e-4, 30, 10),
    'model3': ('asna_simple_a', 'PIPAL', [0, 1e-2], .1, .1, 1e-4, 30, 10),
    'model4': ('asna_simple_b', 'PIPAL', [1e-6, 1e-4], .5, .1, 1e-4, 30, 10),
    'model123': ('asna_simple_b', 'PIPAL', [1e-6, 1e-4], .01, 0, 1e-4, 123, 30),
    'model114': ('asna_simple_b', 'PIPAL', [1e-6, 1e-4], .01, 0, 1e-4, 114, 30),
    'bn_pretrained': ('asna_bn', 'asna_pretrain', [1e-6, 1e-4], .5, .1, 1e-4, 20, 10),
    'bn': ('asna_bn', 'PIPAL', [1e-6, 1e-4], .01, .1, 1e-4, 50, 15),
    'attention_pretrained': ('asna_attention', 'asna_pretrain', [1e-6, 1e-4], 1, .01, 1e-4, 20, 10),
    'attention': ('asna_attention', 'PIPAL', [1e-6, 1e-4], 1, .01, 1e-4, 20, 10),
    'tiled_pretrained': ('asna_tiled', 'asna_pretrain', [1e-6, 1e-4], .5, .1, 1e-5, 16, 10),
    'tiled': ('asna_tiled', 'PIPAL', [1e-6, 1e-4], .2, .1, 1e-4, 30, 15),
}


@pytest.mark.parametrize('name', PUBLISHED)
def test_a_recipe_is_the_published_setting(name):
    args = TRAIN.parse(['--recipe', f'asna_{name}'])
    network, dataset, l2, mse, spearman, rate, epochs, every = PUBLISHED[name]
    doubled = 2 if dataset == 'PIPAL' else 1  # the published epochs hold each pair twice
    assert (args.architecture, args.dataset, args.l2) == (network, dataset, l2)
    assert (args.loss_type, args.mse_factor, args.spearman_factor) == ('macs', mse, spearman)
    assert (args.optimizer, args.learning_rate, args.batch_size) == ('adam-keras', rate, 16)
    assert (args.epochs, args.schedule, args.decay_every) == (doubled * epochs, 'step_decay', doubled * every)
    assert args.target == (['zscore', '1449.05', '121.35'] if dataset == 'PIPAL' else ['zscore', '0', '1'])
    assert args.val_criterion == 'loss'
    assert build_model(args).side == 288


def test_every_recipe_is_tested():
    assert {path.stem for path in FOLDER.glob('asna_*.txt')} == {f'asna_{name}' for name in PUBLISHED}
