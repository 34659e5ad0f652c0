"""Restore a network from a checkpoint, with the line to MOS and the crops that the user asks for."""
import sys
from pathlib import Path

from iqa_data.crops import Crops, crops_of
from iqa_data.transforms import Preprocess
from iqa_networks.network import Network
from iqa_networks.normalise import NORMALISATIONS
from iqa_networks.pretrained import state_dict_in
from iqa_runtime.checkpoint import load_weights, of_set
from iqa_runtime.checks import checked_value
from iqa_runtime.distributed import is_main
from iqa_runtime.errors import UserError, one_line, pick
from iqa_runtime.options import Options
from iqa_scoring.mapping import Mapping
from iqa_training.options import NETWORK, TRAIN
from IQAmodel import create_model


def network_of(checkpoint: dict, file: str | Path, given: dict) -> tuple[str, dict]:
    """Return the name and the options of a checkpoint's network, each checked as on the command line.

    `given` are the user's options. A checkpoint of the original package holds no options: those not given are the
    defaults. Raises UserError if `given` contradicts any other checkpoint.
    """
    known = TRAIN.names(*NETWORK)
    given = TRAIN.stored(given, 'options of the network', names=known)
    if 'network' not in checkpoint:
        own = {'architecture': TRAIN.defaults['architecture'], **given}
    else:
        stored = checkpoint['network']
        own = TRAIN.stored({'architecture': stored['name'], **stored['options']}, file, names=known)
        for name, value in given.items():
            if own.get(name, value) != value:
                raise UserError(f'--{name} {value} conflicts with {file}, which was trained with {own[name]}: leave '
                                'the option out, or name another checkpoint')
    name = own.pop('architecture')
    return name, {option: value for option, value in own.items() if value is not None}


def given_network(args: Options) -> dict:
    """Return the options of the network that the user gave, by name."""
    return {name: getattr(args, name) for name in sorted(args.given & args.command.names(*NETWORK))
            if name != 'weights'}


# options of scoring that the user may change after training
CROPPING = frozenset({'test_crops', 'crop_places', 'crop_size_h', 'crop_size_w', 'train_crops', 'enlarge'})


def of_line(checkpoint: dict, file: str | Path, line_of: str | None = None, tested: str = '') -> dict:
    """Return a checkpoint with one line to MOS: that of `line_of`, else of the data set `tested`, else the first.

    A message on stderr names the line if it was not asked for and is not that of the tested set. UserError if the
    checkpoint has no line of `line_of`.
    """
    sets = checkpoint.get('sets')
    if not sets:
        if line_of and line_of != checkpoint.get('dataset', line_of):
            raise UserError(f'--line_of {line_of}: {file} was trained on {one_line(checkpoint["dataset"])} alone')
        return checkpoint
    try:
        name = pick(sets, line_of, 'data set') if line_of else tested if tested in sets else next(iter(sets))
    except UserError as error:
        raise UserError(f'--line_of: {file}: {error}') from None
    if not line_of and name != tested and is_main():
        print(f'{file} has a line to MOS for each of {one_line(", ".join(sets))}: that of {one_line(name)} is used '
              '(--line_of names another)', file=sys.stderr)
    return of_set(checkpoint, name)


def as_asked(args: Options, checkpoint: dict, file: str | Path, tested: str = '') -> dict:
    """Return a checkpoint that scores by the line and the crops that the user asks for, and enlarges small images.

    What the user does not give is the checkpoint's own; for the line, see `of_line`. UserError if images are to be
    enlarged that the checkpoint resizes.
    """
    checkpoint = of_line(checkpoint, file, args.values.get('line_of'), tested)
    if not args.given & CROPPING:
        return checkpoint
    own = checkpoint.get('crops') or {'count': 0, 'size': (args.crop_size_h, args.crop_size_w), 'places': 'grid'}
    values = {'test_crops': own['count'], 'crop_size_h': own['size'][0], 'crop_size_w': own['size'][1],
              'crop_places': own['places']}
    args = args.having(**{name: value for name, value in values.items() if name not in args.given})
    crops = crops_of(args)
    checkpoint = {key: value for key, value in checkpoint.items() if key != 'crops'}
    checkpoint |= {'crops': crops.stored()} if crops else {}
    if not args.enlarge or 'input' not in checkpoint:
        return checkpoint
    preprocessing = checkpoint['input']['preprocessing']
    if preprocessing.get('resize') and preprocessing.get('fit') != 'enlarge':
        raise UserError(f'--enlarge: {file} was trained with --resize, which gives all images one size')
    preprocessing = {**preprocessing, 'resize': (args.crop_size_h, args.crop_size_w), 'fit': 'enlarge'}
    return {**checkpoint, 'input': {**checkpoint['input'], 'preprocessing': preprocessing}}


def restore_network(checkpoint: dict, file: str | Path, **given) -> Network:
    """Return the network of a checkpoint with its weights; see `network_of` for `given`."""
    name, options = network_of(checkpoint, file, given)
    network = create_model(name, **options)
    load_weights(network, {'model': state_dict_in(checkpoint['model'], file)}, file)
    if len(checkpoint['k']) != len(network.heads):
        raise UserError(f'{file}: k has {len(checkpoint["k"])} values, {name} {len(network.heads)} heads')
    if not 0 <= checkpoint.get('head', 0) < len(network.heads):
        raise UserError(f'{file}: head: expected 0 to {len(network.heads) - 1}')
    checked_value(file, 'mapping', Mapping.of, checkpoint)
    if 'input' in checkpoint:
        checked_value(file, 'input', _input, checkpoint['input'])
    if 'crops' in checkpoint:
        checked_value(file, 'crops', lambda crops: Crops(**crops), checkpoint['crops'])
    return network


def _input(value: dict) -> None:
    pick(NORMALISATIONS, value['normalise'], 'normalisation')
    Preprocess(**value['preprocessing'])
