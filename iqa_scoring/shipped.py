"""The trained model that comes with the toolkit, which scores if the user names no model and has none."""
from pathlib import Path

from iqa_runtime.errors import UserError
from iqa_runtime.files import ROOT
from iqa_runtime.options import Options
from iqa_training.naming import find_checkpoints

MODEL = ROOT / 'models' / 'linearity_iqa_agiqa3k.pth'
ABOUT = ('the model that comes with the toolkit scores: LinearityIQA on EfficientNet-Lite0, trained on the '
         'AI-generated images of AGIQA-3K, not on photographs; on their scale, 0 to 4.49, higher is better. To train '
         'your own: python main.py --dataset YOURS.csv; to score with it: --trained_model_file FILE')


def checkpoints_of(args: Options) -> list[Path]:
    """Return the checkpoints that score: see `find_checkpoints`, or else the shipped model.

    The shipped model is not taken if the options describe a run: UserError, as of `find_checkpoints`.
    """
    try:
        return find_checkpoints(args)
    except UserError:
        if args.trained_model_file or args.given & args.command.names() - {'batch_size'} or not MODEL.is_file():
            raise
    return [MODEL]


def notice(args: Options, file: Path) -> str:
    """Return a line about the shipped model, if it scores although the options do not name it; else ''."""
    chosen = file == MODEL and not args.trained_model_file
    return f'No --trained_model_file, and no run of the default options: {ABOUT}' if chosen else ''
