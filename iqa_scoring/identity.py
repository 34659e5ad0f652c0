"""What scores depend on besides the images, in a few digits: --resume goes on only if they are the same."""
from collections.abc import Sequence

from iqa_runtime.checkpoint import checksum

# what a score and its row come from
SCORING = ('model', 'network', 'input', 'crops', 'head', 'k', 'b', 'mapping', 'mos')


def digest_of(checkpoints: Sequence[dict], **options) -> str:
    """Return 8 hexadecimal digits of the checkpoints' weights, networks, inputs, lines to MOS and scales.

    Names of files are not in it, nor what else a checkpoint holds, as its metrics.

    Args:
        checkpoints: as `load_checkpoint` returns them, with a network and an input.
        options: other plain values that change a score.
    """
    content = [[checkpoint.get(key) for key in SCORING] for checkpoint in checkpoints]
    return f'{checksum([content, sorted(options.items())]):08x}'
