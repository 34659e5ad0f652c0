"""Score an image.

    python test_demo.py --img photo.jpg --trained_model_file checkpoints/NAME.pth
"""
from pathlib import Path

import torch
from PIL import Image
from torchvision.transforms.functional import pil_to_tensor

import IQAcheckpoint
from IQAdataset import Preprocess, normalize, preprocess_of
from IQAinfo import source_of
from IQAoptions import TEST_DEMO, parse
from IQAutils import UserError, command
from test_dataset import find_checkpoint, load_model


@command
def main(argv: list[str] | None = None) -> float:
    """Parse the options, print the score of the image on the MOS scale, and return it."""
    args = parse(argv, TEST_DEMO, __doc__)
    file = Path(args.trained_model_file or find_checkpoint(args))
    checkpoint = IQAcheckpoint.load(file)
    IQAcheckpoint.adopt(args, checkpoint, file)
    if 'preprocessing' in checkpoint:
        preprocess = Preprocess(**checkpoint['preprocessing'])
    else:
        preprocess = preprocess_of(args, source_of(args.dataset))
    image = read_image(args.img, preprocess)
    model = load_model(args, checkpoint, file)
    with torch.inference_mode():
        raw = model(normalize(pil_to_tensor(image)[None].to(args.device)))[-1].item()
    score = checkpoint['k'][0] * raw + checkpoint['b'][0]
    print(f'The image quality score is {score}')
    return score


def read_image(path: str, preprocess: Preprocess) -> Image.Image:
    """The preprocessed image; UserError where it is missing or no image."""
    try:
        return preprocess(path)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = 'no such file' if isinstance(error, FileNotFoundError) else error
        raise UserError(f'--img {path}: {reason}') from None


if __name__ == '__main__':
    main()
