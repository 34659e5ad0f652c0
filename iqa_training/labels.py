"""Labels that losses need beside the MOS: check before the training that the data set has them."""
from collections.abc import Mapping

from iqa_losses import INPUTS, LOSSES, chosen
from iqa_runtime.errors import UserError
from IQAdataset import Data


def check_labels(options: Mapping, data: Data) -> None:
    """Raise UserError if a training image lacks what the losses that the options choose need."""
    labels = data.datasets['train'].labels
    known = {'std': labels.std, **labels.more}
    for name in chosen(options):
        for need in set(LOSSES[name].needs()) - {'y_pred', 'y'}:
            images = len(labels.mos)
            missing = int(known[need].isnan().any(1).sum()) if need in known else images
            if missing:
                of = '' if missing == images else f' of {missing} of its {images} training images'
                raise UserError(f'--loss_type {name} needs {INPUTS[need]}: {data.name} does not have them{of}')
