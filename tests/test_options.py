"""The command line: the published commands, defaults, names of runs, mistakes."""
import pytest

from IQAoptions import MAIN, TEST_DATASET, TEST_DEMO, lr_decay_step, parse, run_name, trained_criterion, with_dataset

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
GROUPS = {'main.py': MAIN, 'test_dataset.py': TEST_DATASET, 'test_demo.py': TEST_DEMO}

SPELLINGS = """--seed=1|-lr=2 --learning_rate=2 --lr=2|-bs=3 --batch_size=3|-flr=.5 --ft_lr_ratio=.5|
-accum=2 --accumulation_steps=2|-e=4 --epochs=4|-wd=.1 --weight_decay=.1|-lrd=.5 --lr_decay=.5|
-olrd=.5 --overall_lr_decay=.5|-optl=O0 --opt_level=O0|-rn --randomness|-valc=PLCC1 --val_criterion=PLCC1|
-a=1,2 --alpha=1,2|-b=1,2,3 --beta=1,2,3|-arch=alexnet --architecture=alexnet --arch=alexnet|-pl=max --pool=max|
-ubne --use_bn_end|-P6=2 --P6=2|-P7=2 --P7=2|-lt=mae --loss_type=mae|-p=2 --p=2|-q=1 --q=1|-detach --detach|
-monoreg --monotonicity_regularization|-g=1 --gamma=1|-ds=CLIVE --dataset=CLIVE|-eid=3 --exp_id=3|
-tr=.5 --train_ratio=.5|-tvr=.7 --train_and_val_ratio=.7|-rs --resize|-rs_h=9 --resize_size_h=9|
-rs_w=9 --resize_size_w=9|-augment --augmentation|-ag=3 --angle=3|-cs_h=9 --crop_size_h=9|-cs_w=9 --crop_size_w=9|
-hp=.1 --hflip_p=.1|-logd=x --log_dir=x|-tdt --test_during_training|-eval --evaluate|-debug --debug|-pbar --pbar|
-modelfile=x --trained_model_file=x"""

DEFAULTS = {'seed': 19920517, 'learning_rate': 1e-4, 'batch_size': 8, 'ft_lr_ratio': .1, 'accumulation_steps': 1,
            'epochs': 30, 'weight_decay': 0, 'lr_decay': .1, 'overall_lr_decay': .01, 'opt_level': 'O1',
            'val_criterion': 'SROCC', 'alpha': [1, 0], 'beta': [.1, .1, 1], 'architecture': 'resnext101_32x8d',
            'pool': 'avg', 'P6': 1, 'P7': 1, 'loss_type': 'norm-in-norm', 'p': 1, 'q': 2, 'gamma': .1,
            'dataset': 'KonIQ-10k', 'exp_id': 0, 'angle': 2, 'crop_size_h': 498, 'crop_size_w': 498, 'hflip_p': .5,
            'log_dir': 'runs', 'weights': 'imagenet', 'optimizer': 'adam', 'randomness': False, 'resize': False}


def options(line='', groups=MAIN):
    return parse(line.split(), groups)


@pytest.mark.parametrize(('script', 'line'), PUBLISHED)
def test_published_commands_parse(script, line):
    assert options(line, GROUPS[script]).resize


@pytest.mark.parametrize('word', ['-h', '-help', '--help'])
@pytest.mark.parametrize('groups', GROUPS.values())
def test_help_says_the_defaults(word, groups, capsys):
    with pytest.raises(SystemExit) as stop:
        options(word, groups)
    assert stop.value.code == 0
    assert '(default: 19920517)' in capsys.readouterr().out


@pytest.mark.parametrize('spellings', SPELLINGS.replace('\n', '').split('|'))
def test_every_spelling_means_the_same(spellings):
    parsed = [vars(options(spelling.replace('=', ' ').replace(',', ' '))) for spelling in spellings.split()]
    for other in parsed:
        assert len(other['given']) == 1
        assert {name: value for name, value in other.items() if name != 'unsettled'} == \
               {name: value for name, value in parsed[0].items() if name != 'unsettled'}


def test_defaults_are_the_papers():
    args = vars(options())
    assert {name: args[name] for name in DEFAULTS} == DEFAULTS
    resized = options('--resize')
    assert (resized.resize_size_h, resized.resize_size_w) == (498, 664)
    clive = options('--dataset CLIVE')
    assert (clive.train_ratio, clive.train_and_val_ratio) == (.6, .8)


def test_koniq_has_its_official_split_and_size():
    args = options('--train_ratio .1')
    assert (args.train_ratio, args.train_and_val_ratio) == (7058 / 10073, 8058 / 10073)
    assert (args.resize_size_h, args.resize_size_w) == (768, 1024)


def test_lp_is_norm_in_norm():
    assert run_name(options('--loss_type Lp')) == run_name(options())


@pytest.mark.parametrize('change', ['-lr 1e-3', '-bs 4', '--beta .1 .1 2', '--seed 1', '-P6 2', '--weights none',
                                    '--optimizer sgd', '--alpha 1 .1', '--use_bn_end', '-accum 2', '--detach', '-ag 3'])
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
    args = options('--dataset CLIVE --resize --data_info clive.mat', TEST_DATASET)
    assert run_name(with_dataset(args, 'KonIQ-10k')) == run_name(options('--resize'))
    assert run_name(with_dataset(args, 'CLIVE')) == run_name(args)


@pytest.mark.parametrize(('beta', 'expected'), [([1, 0, 0], 'SROCC1'), ([0, 1, 0], 'SROCC2'), ([0, 0, 1], 'SROCC'),
                                                ([.1, .1, 1], 'SROCC')])
def test_the_criterion_moves_to_the_only_trained_head(beta, expected):
    assert trained_criterion('SROCC', beta) == expected


@pytest.mark.parametrize(('arguments', 'step'), [((30, .1, .01), 10), ((2, .1, .01), 1), ((1, .1, .01), 1),
                                                 ((30, 1, .01), 30), ((30, .5, .25), 10)])
def test_lr_decay_step(arguments, step):
    assert lr_decay_step(*arguments) == step


@pytest.mark.parametrize(('line', 'message'), [
    ('-arch resnet51', "unknown architecture 'resnet51' (did you mean resnet50?)"),
    ('-arch resnet51', 'expected one of: resnet18'),
    ('--loss_type norminnorm', 'did you mean norm-in-norm?'),
    ('--pool mean', 'expected one of: avg, max, min, std, maxmin, mean_std'),
    ('--val_criterion srocc', 'did you mean SROCC?'),
    ('--dataset koniq-10k', 'did you mean KonIQ-10k?'),
    ('-lr -1', 'out of range: above 0'),
    ('-lr nan', 'out of range'),
    ('-bs 0', 'out of range: at least 1'),
    ('-e 1.5', 'not a whole number'),
    ('--hflip_p 2', 'at most 1'),
    ('--beta 0 0 0', 'each need a weight above 0'),
    ('--dataset demo --train_ratio .9', '--train_ratio 0.9 is larger than --train_and_val_ratio 0.8'),
    ('--lossy', 'unrecognized arguments: --lossy'),
])
def test_mistakes_are_one_line(line, message, fails):
    assert message in fails(lambda argv: parse(argv, MAIN), *line.split())
