"""The command line: the published commands, defaults, recipes, names of runs, mistakes."""
import hashlib
import json
import os
import sys
from pathlib import Path

import pytest

from iqa_runtime.errors import UserError
from iqa_runtime.option_values import words_of
from iqa_runtime.options import Options
from iqa_scoring.options import SCORE, TEST
from iqa_training import state
from iqa_training.naming import checkpoint_file, log_name, on_dataset, run_name
from iqa_training.options import TRAIN
from iqa_training.schedules import lr_decay_step

PUBLISHED = [
    ('main.py', '--dataset KonIQ-10k --resize --loss_type mae --test_during_training'),
    ('main.py', '--resize --loss_type mse --test_during_training --use_bn_end'),
    ('main.py', '--resize -lr 1e-4 -bs 8 --ft_lr_ratio 0.1 -arch resnet50'),
    ('main.py', '--resize --ft_lr_ratio 0 -arch resnet50'),
    ('main.py', '--resize -arch resnet18 --p 2 --q 1'),
    ('main.py', '--resize --alpha 1 0.1'),
    ('main.py', '--dataset KonIQ-10k --resize --exp_id 0 --lr 1e-4 -bs 8 -e 30 --ft_lr_ratio 0.1 --arch '
                'resnext101_32x8d --loss_type Lp --p 1 --q 2 --alpha 1 0.1'),
    ('test_dataset.py', '--resize -arch resnet18 --dataset CLIVE'),
    ('test_dataset.py', '--dataset KonIQ-10k --resize --arch resnext101_32x8d --trained_model_file '
                        'checkpoints/p1q2.pth'),
    ('test_demo.py', '--img data/1000.JPG --resize --arch resnext101_32x8d --trained_model_file checkpoints/p1q2.pth'),
]
COMMANDS = {'main.py': TRAIN, 'test_dataset.py': TEST, 'test_demo.py': SCORE}

SPELLINGS = """--seed=1|-lr=2 --learning_rate=2 --lr=2|-bs=3 --batch_size=3|-flr=.5 --ft_lr_ratio=.5|
-accum=2 --accumulation_steps=2|-e=4 --epochs=4|-wd=.1 --weight_decay=.1|-lrd=.5 --lr_decay=.5|
-olrd=.5 --overall_lr_decay=.5|-optl=O0 --opt_level=O0|-rn --randomness|-valc=PLCC1 --val_criterion=PLCC1|
-a=1,2 --alpha=1,2|-b=1,2,3 --beta=1,2,3|-arch=alexnet --architecture=alexnet --arch=alexnet|-pl=max --pool=max|
-ubne --use_bn_end|-P6=2 --P6=2|-P7=2 --P7=2|-lt=mae --loss_type=mae|-p=2 --p=2|-q=1 --q=1|-detach --detach|
-monoreg --monotonicity_regularization|-g=1 --gamma=1|-ds=CLIVE --dataset=CLIVE|-eid=3 --exp_id=3|
-tr=.5 --train_ratio=.5|-tvr=.7 --train_and_val_ratio=.7|-rs --resize|-rs_h=9 --resize_size_h=9|
-rs_w=9 --resize_size_w=9|-augment --augmentation|
-logd=x --log_dir=x|-tdt --test_during_training|-eval --evaluate|-debug --debug|-pbar --pbar|
-modelfile=x --trained_model_file=x"""


def options(line='', command=TRAIN) -> Options:
    return command.parse(line.split())


@pytest.mark.parametrize(('script', 'line'), PUBLISHED)
def test_published_commands_parse(script, line):
    assert options(line, COMMANDS[script]).resize


def helped(line: str, command, capsys) -> str:
    with pytest.raises(SystemExit) as stop:
        options(line, command)
    assert stop.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize('word', ['-h', '-help', '--help'])
@pytest.mark.parametrize('command', COMMANDS.values())
def test_help_is_short_and_names_the_other_groups(word, command, capsys):
    text = helped(word, command, capsys)
    assert text.startswith(command.doc.strip())
    for group in command.others:
        assert f'--help {group.title}' in text
    for group in command.accepted:
        assert f'\n{group.title}:' not in text
        assert helped(f'--help {group.title}', command, capsys).startswith(f'{group.title}:')


@pytest.mark.parametrize('command', COMMANDS.values())
def test_help_of_a_group_says_the_defaults(command, capsys):
    assert '(default: 19920517)' in helped('--help training', command, capsys)
    text = helped('--help all', command, capsys)
    assert all(f'--{name}' in text or f'--no-{name}' in text or name == 'targets' for name in command.actions)


@pytest.mark.parametrize('spellings', SPELLINGS.replace('\n', '').split('|'))
def test_every_spelling_means_the_same(spellings):
    parsed = [options(spelling.replace('=', ' ').replace(',', ' ')) for spelling in spellings.split()]
    for other in parsed:
        assert len(other.given) == 1
        assert (other.values, other.given) == (parsed[0].values, parsed[0].given)


@pytest.mark.parametrize(('short', 'long'), [('-ag 3', '--angle 3'), ('-cs_h 9', '--crop_size_h 9'),
                                             ('-cs_w 9', '--crop_size_w 9'), ('-hp .1', '--hflip_p .1')])
def test_every_spelling_of_an_augmentation_means_the_same(short, long):
    assert options(f'-augment {short}').changed() == options(f'-augment {long}').changed()


def test_nobody_writes_into_options():
    args = options('-bs 4')
    with pytest.raises(AttributeError):
        args.batch_size = 5
    with pytest.raises(AttributeError, match='no option nowhere'):
        args.nowhere  # noqa: B018
    assert args.having(batch_size=5).batch_size == 5
    assert args.batch_size == 4


def test_lp_is_norm_in_norm():
    assert run_name(options('--loss_type Lp')) == run_name(options())


@pytest.mark.parametrize(('line', 'name', 'value'), [
    ('--optimizer SGD', 'optimizer', 'sgd'), ('-lt NormInNorm', 'loss_type', 'norm-in-norm'),
    ('-valc srocc', 'val_criterion', 'SROCC'), ('-arch ResNet-50', 'architecture', 'resnet50'),
    ('-arch ResNeXt-101', 'architecture', 'resnext101_32x8d'), ('-ds KonIQ10k', 'dataset', 'KonIQ-10k'),
    ('--split K-fold', 'split', 'kfold'), ('-pl Mean-Std', 'pool', 'mean_std'), ('-optl BF16', 'opt_level', 'bf16'),
    ('--weights ImageNet', 'weights', 'imagenet'), ('--weights Weights/X.pth', 'weights', 'Weights/X.pth'),
    ('--target ZScore', 'target', ['zscore']), ('--augmentation HFlip Rot90', 'augmentation', ['hflip', 'rot90'])])
def test_names_are_taken_in_any_case(line, name, value):
    assert options(line).values[name] == value


def test_threads_sleep_while_they_wait_unless_the_user_says_otherwise(monkeypatch):
    monkeypatch.delenv('OMP_WAIT_POLICY', raising=False)
    TRAIN.begin([])
    assert os.environ['OMP_WAIT_POLICY'] == 'PASSIVE'
    monkeypatch.setenv('OMP_WAIT_POLICY', 'ACTIVE')
    TRAIN.begin([])
    assert os.environ['OMP_WAIT_POLICY'] == 'ACTIVE'


def test_a_script_that_begins_reads_the_command_line_again(monkeypatch):
    monkeypatch.setattr(TRAIN, 'begun', None)
    TRAIN.begin(['-e', '2'])
    assert TRAIN.parse().epochs == 2
    monkeypatch.setattr(sys, 'argv', ['main.py', '-e', '3'])
    TRAIN.begin()  # as a second script in this process does
    assert TRAIN.parse().epochs == 3


# Recipes

def test_the_papers_recipe_is_the_defaults(capsys):
    args = options('--recipe linearity_iqa')
    assert args.values == options().values
    assert not options().given
    assert not options().changed()
    listed = helped('--recipe', TRAIN, capsys)
    assert 'linearity_iqa' in listed
    assert 'Norm-in-Norm' in listed


def test_the_command_line_wins_over_a_recipe(tmp_path):
    recipe = tmp_path / 'mine.txt'
    recipe.write_text('# my own\n-bs 4 -lt mse   # two options\n--alpha 1 .5\n')
    args = options(f'-bs 16 --recipe {recipe}')
    assert (args.batch_size, args.loss_type, args.alpha) == (16, 'mse', [1, .5])
    assert 'recipe' not in args.values


def test_the_options_of_a_run_are_a_recipe(tmp_path):
    args = options('-bs 4 --beta 1 0 0 --augmentation hflip crop --target zscore -arch resnet18 --resize --no-pbar')
    file = tmp_path / 'options.json'
    file.write_text(json.dumps({'run_name': 'x', 'split_hash': 'y', **args.of_training()}))
    again = options(f'--recipe {file}')
    assert again.of_training() == args.of_training()
    assert run_name(again) == run_name(args)


@pytest.mark.parametrize(('content', 'message'), [
    ('-bs', 'expected one argument'), ('--csv x', 'unrecognized arguments: --csv'), ('"', 'No closing quotation'),
    ('--log_dir /etc', '--log_dir is no option of training'), ('--recipe other', '--recipe is no option of training')])
def test_bad_recipes(content, message, tmp_path, fails):
    (tmp_path / 'mine.txt').write_text(content)
    error = fails(TRAIN.parse, '--recipe', tmp_path / 'mine.txt')
    assert 'mine.txt' in error
    assert message in error


@pytest.mark.parametrize(('content', 'message'), [
    ('[]', 'expected the options of a run'), ('{', 'expected the options of a run'),
    ('{"batch_size": "many"}', "'many' is not a whole"),
    ('{"batch_size": 2.5}', 'not a whole number'), ('{"resize": 1}', 'neither true nor false'),
    ('{"alpha": [1]}', 'expected 2 values'), ('{"alpha": 1}', 'is not a list'), ('{"log_dir": "x"}', 'no option of tr'),
    ('{"learning_rate": NaN}', 'out of range'), ('{"architecture": {"a": 1}}', 'neither a number nor a text'),
    ('{"pool": "--csv"}', 'unknown pool'), ('[' * 10000, 'expected the options of a run')])
def test_bad_options_of_a_run(content, message, tmp_path, fails):
    (tmp_path / 'options.json').write_text(content)
    error = fails(TRAIN.parse, '--recipe', tmp_path / 'options.json')
    assert message in error
    assert 'options.json' in error


def test_an_unknown_recipe_names_the_nearest(fails):
    assert 'did you mean linearity_iqa?' in fails(TRAIN.parse, '--recipe', 'linearity')


def test_options_as_words_parse_to_the_same():
    args = options('-bs 4 --augmentation hflip --beta 1 0 2 --resize --weights none')
    words = words_of({name: args.values[name] for name in args.given})
    assert TRAIN.parse(words).values == args.values


def test_stored_options_are_checked_as_if_typed():
    args = options('-arch resnet50', TEST)
    with pytest.raises(UserError, match=r'--architecture resnet50 conflicts with x.pth, .* trained with resnet18'):
        args.adopting({'architecture': 'resnet18'}, ['architecture'], 'x.pth')
    with pytest.raises(UserError, match=r"x.pth: the option 'pool': unknown pool 'no'"):
        args.adopting({'pool': 'no'}, ['pool'], 'x.pth')
    taken = args.adopting({'resize': True, 'csv': 'out', 'device': 'cuda'}, ['resize', 'csv', 'device'], 'x.pth')
    assert taken.values == {**args.values, 'resize': True}


# Names of runs

@pytest.mark.parametrize('change', ['-lr 1e-3', '-bs 4', '--beta .1 .1 2', '--seed 1', '-P6 2', '--weights none',
                                    '--optimizer sgd', '--alpha 1 .1', '--use_bn_end', '-accum 2', '--detach',
                                    '-augment -ag 3'])
def test_the_name_of_a_run_changes_with_every_option_of_training(change):
    assert run_name(options(change)) != run_name(options())


@pytest.mark.parametrize('same', ['--im_dir x', '--num_workers 3', '--device cpu', '-tdt', '--log_dir x', '--log_bhat',
                                  '--no-pbar', '--alpha 1 0', '-p 1', '--result_dir x', '-wd 0.0'])
def test_and_with_nothing_else(same):
    assert run_name(options(same)) == run_name(options())


def test_the_name_is_a_file_name():
    name = run_name(options('--weights /some/where/deep.pth --architecture wide_resnet101_2 --loss_type min-max-norm'))
    assert '/' not in name
    assert len(name) < 150


def test_the_same_options_on_another_set():
    args = options('--dataset CLIVE --resize --data_info clive.mat', TEST)
    assert run_name(on_dataset(args, 'KonIQ-10k')) == run_name(options('--resize'))
    assert on_dataset(args, 'CLIVE') is args


def test_a_name_shows_what_is_not_the_default():
    name = run_name(options('--optimizer sgd --use_bn_end --beta 1 0 0 -lr 1e-3 --resize'))
    for part in ('-sgd', '-bn_end', '-beta1-0-0', '-lr0.001', '-resize'):
        assert part in name
    assert run_name(options()).startswith('resnext101_32x8d-norm-in-norm-KonIQ-10k-')


@pytest.mark.parametrize(('line', 'word'), [
    ('-P6 2', '-P6_2'), ('--weights none', '-weights_none'), ('--weights some/file.pth', '-weights_file.pth'),
    ('--filter cubic', '-filter_cubic'), ('--split kfold --fold 2', '-kfold-fold2'), ('-valc RMSE', '-best_RMSE'),
    ('--target 0 100', '-target0-100'), ('-arch asna_attention --no-attention', '-no_attention'),
    ('-lt mae', 'resnext101_32x8d-mae-')])
def test_words_of_a_name(line, word):
    assert word in run_name(options(line))


def test_a_long_name_ends_with_a_whole_word():
    line = '--recipe maniqa_384 --split_seed 3 --dropout .25 --train_ratio .5 --momentum .5 --optimizer sgd'
    name = run_name(options(line))
    assert len(name) < 130
    head = name.rpartition('-')[0]
    assert all(word in head for word in ('maniqa_384-mse-Samsung-2023', '-sgd', '-lr1e-05', '-bs32', '-e200'))
    for other in ('-bs 64', '--dropout .3', '--train_ratio .6'):
        assert run_name(options(f'{line} {other}')) != name


@pytest.mark.parametrize('kept', ['.pth', '.pth.00000012.state'])
def test_a_run_is_known_by_its_digest(kept, tmp_path):
    args = options(f'--checkpoint_dir {tmp_path} -bs 4')
    digest = run_name(args).rpartition('-')[2]
    for other in ('x-00000000.pth', f'x-{digest}-calibrated.pth', f'x-{digest}.pth.lock'):
        (tmp_path / other).touch()
    assert checkpoint_file(args).name == f'{run_name(args)}.pth'
    (tmp_path / f'other-words-{digest}{kept}').touch()
    assert checkpoint_file(args).name == f'other-words-{digest}.pth'
    assert log_name(args) == f'other-words-{digest}'
    (tmp_path / f'{run_name(args)}{kept}').touch()
    assert log_name(args) == run_name(args)


def test_the_digests_of_recorded_runs_stay():
    assert run_name(options()).endswith('-44136fa3')
    assert run_name(options('--recipe maniqa_384')).endswith('-29eefa6e')


def test_an_option_with_a_default_renames_no_run():
    changed = options('-bs 4').changed()
    assert changed == {'batch_size': 4}


@pytest.mark.parametrize(('arguments', 'step'), [((30, .1, .01), 10), ((2, .1, .01), 1), ((1, .1, .01), 1),
                                                 ((30, 1, .01), 30), ((30, .5, .25), 10)])
def test_lr_decay_step(arguments, step):
    assert lr_decay_step(*arguments) == step


@pytest.mark.parametrize(('line', 'message'), [
    ('-arch resnet51', "unknown architecture 'resnet51' (did you mean resnet50?)"),
    ('-arch resnet51', 'expected one of: resnet18'),
    ('--loss_type norm-norm', 'did you mean norm-in-norm?'),
    ('--pool mean', 'expected one of: avg, max, min, std, maxmin, mean_std'),
    ('--val_criterion sroc', 'did you mean SROCC?'),
    ('--dataset koniq', 'did you mean KonIQ-10k?'),
    ('-lr -1', 'out of range: above 0'),
    ('-lr nan', 'out of range'),
    ('-bs 0', 'out of range: at least 1'),
    ('-e 1.5', 'not a whole number'),
    ('--hflip_p 2', 'at most 1'),
    ('--beta 0 0 0', 'each need a weight above 0'),
    ('--dataset demo --train_ratio .9', '--train_ratio 0.9 is larger than --train_and_val_ratio 0.8'),
    ('--lossy', 'unrecognized arguments: --lossy'),
    ('--epoch 3', 'did you mean --epochs?'),
    ('--loss mse', 'did you mean --loss_type?'),
    ('--target 5 0', 'expected none, zscore, zscore MEAN STD'),
    ('--device meta', 'computes nothing'),
    ('--seed 18446744073709551616', 'out of range'),
    ('-P7 99999999999999999999', 'out of range'),
])
def test_mistakes_are_one_line(line, message, fails):
    assert message in fails(lambda argv: TRAIN.parse(argv), *line.split())


# Options without effect

@pytest.mark.parametrize(('line', 'message'), [
    ('--loss_type mse --p 2', '--p: --loss_type mse takes no such option; it takes: none'),
    ('-lt mae+plcc:.5 --q 1', '--q: --loss_type mae+plcc:0.5 takes no such option; it takes: none'),
    ('-lt mse --detach', '--detach: --loss_type mse'), ('--mse_factor 1', 'it takes: alpha, detach, p, q'),
    ('-lt linearity --ranker x.pth', '--ranker: --loss_type linearity'),
    ('--angle 3', '--angle: it needs --augmentation'),
    ('--augmentation hflip rot90 --angle 3', '--angle: --augmentation hflip rot90 takes no such option; it takes: hf'),
    ('-arch cnniqa --P6 2', '--P6: --architecture cnniqa takes no such option; it takes: dropout'),
    ('-arch resnet18 --nfs 1 2 3 4 5 6 7 8 9 10', '--nfs: --architecture resnet18 takes no such option'),
    ('-arch timm/convnext_tiny --dropout .1', '--dropout: --architecture timm/convnext_tiny takes no such option'),
    ('--schedule cosine --lr_decay .5', '--lr_decay: --schedule cosine takes no such option; it takes: min_lr'),
    ('--optimizer adadelta --momentum .5', '--momentum: --optimizer adadelta takes no such option; it takes: none')])
def test_an_option_that_the_chosen_row_does_not_take_is_refused(line, message, fails):
    assert message in fails(TRAIN.parse, *line.split())


@pytest.mark.parametrize('line', ['-lt mse+norm-in-norm --p 2', '-lt mse --monotonicity_regularization --detach',
                                  '-lt mse -p 1', '-lt macs --ranker x.pth --mse_factor 1',
                                  '-arch timm/convnext_tiny -P6 2', '-augment -ag 5', '-augment vflip -hp .1'])
def test_an_option_of_a_chosen_row_is_taken(line):
    options(line)


def test_options_without_effect_rename_no_run_and_old_runs_are_found(tmp_path):
    (tmp_path / 'mine.txt').write_text('-lt norm-in-norm --p 2 --alpha 1 .5')
    line = f'--checkpoint_dir {tmp_path} -lt mse'
    of_recipe = options(f'--recipe {tmp_path}/mine.txt {line}')
    assert run_name(of_recipe) == run_name(options(line))
    assert of_recipe.of_training() == options(line).of_training()
    old = {'loss_type': 'mse', 'p': 2., 'alpha': [1., .5]}  # as former versions made digests
    digest = hashlib.sha256(json.dumps(old, sort_keys=True).encode()).hexdigest()[:8]
    (tmp_path / f'resnext101_32x8d-mse-{digest}.pth').touch()
    assert checkpoint_file(of_recipe).name == f'resnext101_32x8d-mse-{digest}.pth'
    typed = options(f'{line} --p 2 --alpha 1 .5', TEST)  # what scores may describe an old run
    assert checkpoint_file(typed).name == f'resnext101_32x8d-mse-{digest}.pth'
    (tmp_path / f'{run_name(of_recipe)}.pth').touch()
    assert checkpoint_file(of_recipe).name == f'{run_name(of_recipe)}.pth'


def test_a_state_of_an_earlier_version_is_resumed(monkeypatch):
    """It holds options that had no effect, and None where an option has a default by now."""
    args = options('-lt mse --optimizer sgd')
    former = {**args.of_training(), 'p': 2., 'momentum': None, 'lstm_units': None}
    monkeypatch.setattr(state, 'read_state', lambda path: {'options': former, 'iteration': 3, 'record': {'epoch': 0}})
    assert state.find_state(Path('x.pth'), 'x.state', args)['iteration'] == 3
    with pytest.raises(UserError, match=r'the run had other options: --momentum 0.5 \(was 0\)$'):
        state.find_state(Path('x.pth'), 'x.state', options('-lt mse --optimizer sgd --momentum .5'))
