"""Options of testing, scoring, calibration, reports and export."""
import os

from iqa_data import options as of_data
from iqa_data.options import datasets
from iqa_runtime.errors import UserError
from iqa_runtime.files import is_device
from iqa_runtime.option_types import among, choice, count, number
from iqa_runtime.options import Command, Options, group, machine, machine_device, machine_of_several
from iqa_training import options as of_training

TESTED = ('auto', 'test', 'val', 'all')
CURVES = ('linear', 'logistic')
READABLE = ('challenge', 'full')  # forms of tables that the ensemble reads
HOW = ('iqr', 'mean', 'median')
MAX_PIXELS = 178_956_970  # of an image: Pillow's own limit
MAX_BYTES = 1 << 28       # of an image in a shard
WINDOW = 3                # side of the windows of a quality map, in cells of the last feature level
ONLY = {'img': ('csv', 'json', 'parquet', 'resume', 'overwrite', 'columns', 'sort', 'clamp', 'picture', 'curve', 'map',
                'report'),
        'calibrate': ('calibration', 'force', 'out')}  # an option -> those that have no effect without it


@group('testing', 'the images that are tested')
def testing(add) -> None:
    add('--part', type=choice(TESTED, 'part'), metavar=among(TESTED), default='auto',
        help='auto: the test part of the data set that the model was trained on, val if it has none; or all images of '
             'another data set')
    add('--trained_on', type=datasets, metavar='DATASET',
        help='data set of the training run, to find its checkpoint (default: --dataset, else KonIQ-10k)')


@group('lines', 'the line to MOS of a model that was trained on several data sets')
def lines(add) -> None:
    add('--line_of', metavar='NAME', help='use the line of this data set (default: the tested one\'s, else the first)')


def launched() -> int:
    """Return the number of processes that torchrun started; 1 without torchrun."""
    return int(os.environ['WORLD_SIZE']) if 'TORCHELASTIC_RUN_ID' in os.environ else 1


def check_input(args: Options) -> None:
    """Raise UserError if options of scoring cannot be combined."""
    if args.calibrate and (args.views != 'none' or len(args.trained_model_file or ()) > 1):
        raise UserError('--calibrate fits the scores of one checkpoint, without --views')
    if sum(map(bool, (args.img, args.calibrate, args.about))) != 1:
        raise UserError('give either --img (images to score), --calibrate (ratings to fit the scores to), or --about')
    for needed, names in ONLY.items():
        for name in names:
            if name in args.given and not getattr(args, needed):
                raise UserError(f'--{name} needs --{needed}: leave it out')
    if args.resume and not (args.csv or args.json or args.parquet):
        raise UserError('--resume needs --csv, --json or --parquet, which it continues')
    if args.parquet and (args.csv or args.json or args.sort):
        raise UserError('--parquet is the only table, in the order of the images: leave out --csv, --json and --sort')
    if args.resume and args.report:
        raise UserError('--report shows the images that are scored in this run: leave out --resume')
    if launched() > 1 and args.img and not (args.csv or args.json or args.parquet):
        raise UserError('under torchrun, give --csv, --json or --parquet, which all processes write to')
    for name, path in (('csv', args.csv), ('json', args.json)):
        again = args.resume or args.sort or launched() > 1 or args.columns != 'full'
        if path and is_device(path) and again:
            raise UserError(f'--{name} {path} cannot be read again, as --resume, --sort, --columns and torchrun need: '
                            'name a file')


@group('input', 'the images to score', check=check_input)
def images(add) -> None:
    add('--img', '--img_path', dest='img', nargs='+', default=[], metavar='IMAGE',
        help='files, folders, glob patterns, patterns of braces, shards (.tar, .parquet), videos (.mp4, ...), or - '
             'for a list on stdin')
    add('--ref', metavar='REFERENCE',
        help='for a full-reference network: the reference image, or a folder of references, named like the image or '
             'like the part of its name before an underscore; without it, --img - reads a table image,reference')
    add('--recursive', action='store_true', help='look into the folders below a folder too')
    add('--max_pixels', type=count, default=MAX_PIXELS, help='refuse larger images: a small file can hold a huge one')
    add('--max_bytes', type=count, default=MAX_BYTES, help='skip larger images in shards')
    add('--every', type=count, default=10, metavar='N', help='score each N-th frame of a video')
    add('--image_column', metavar='NAME',
        help='column of the images in a Parquet, or their extension in a tar (default: image, jpg, jpeg, png, webp or '
             'bytes; all images of a tar)')


@group('views', 'the views of an image whose scores are averaged')
def views(add) -> None:
    add('--views', type=choice('iqa_scoring.views:VIEWS', 'views'), default='none',
        help='none: the image alone; asna: 22 variants (rotated, flipped, of other lightness); crops20: 20 crops of '
             '224x224, for maniqa_224')


@group('engine', 'the program that computes the network')
def engine(add) -> None:
    add('--engine', type=choice('iqa_scoring.engines:ENGINES', 'engine'), default='torch',
        help='torch; or onnx: ONNX Runtime on the CPU, which can be faster (pip install -r requirements-export.txt)')


def check_output(args: Options) -> None:
    """Refuse tables that would be lost, and the form of a challenge without --csv or with --resume."""
    if {'resume', 'overwrite'} <= args.given:
        raise UserError('--resume continues tables, and --overwrite replaces them: give one')
    for name, path in (('csv', args.csv), ('json', args.json)):
        kept = path and os.path.isfile(path) and os.path.getsize(path) and not is_device(path)
        if kept and not (args.resume or args.overwrite):
            raise UserError(f'--{name} {path} exists: --resume scores what it lacks, and --overwrite replaces it')
    if args.columns != 'full' and (args.resume or not args.csv):
        raise UserError(f'--columns {args.columns} needs --csv, and --resume cannot continue the table')


@group('output', 'tables and pictures of the scores', check=check_output)
def output(add) -> None:
    add('--about', metavar='CHECKPOINT', help='no scoring: print the model card of a checkpoint')
    add('--csv', metavar='FILE', help='write a table')
    add('--json', metavar='FILE', help='write JSON lines')
    add('--parquet', metavar='DIR', help='write a folder of Parquet files, one for each shard')
    add('--columns', type=choice('iqa_scoring.tables:FORMS', 'form of the table'), default='full',
        help="form of the finished --csv: full; ntire: that challenge's output.txt, lines FILE,SCORE in its order; "
             "challenge: the 2023 Samsung AI Challenge's, img_name,mos,comments, scores clipped to 0..10")
    add('--resume', action='store_true', help='score only what --csv, --json or --parquet lack')
    add('--overwrite', action='store_true', help='replace the files of --csv and --json if they exist')
    add('--sort', action='store_true', help='sort the scores, best first')
    add('--clamp', action='store_true', help='keep scores within the range of the training MOS')
    add('--picture', metavar='FILE', help='draw a single image, its reference and its score, as PNG')
    add('--curve', metavar='FILE', help='draw the scores of up to six videos over time, as PNG')
    add('--map', metavar='DIR', help='write the quality map of each image to this folder, as PNG')


@group('report', 'an HTML page of the images')
def report(add) -> None:
    from argparse import BooleanOptionalAction
    add('--report', metavar='FILE', help='write a self-contained HTML page')
    add('--report_maps', action=BooleanOptionalAction, default=True,
        help='show a quality map of each image in the report')
    add('--map_window', type=number(int, 1, 1024), default=WINDOW,
        help='side of the windows of a quality map, in cells (32 pixels in a ResNet)')


@group('calibration', 'fitting scores to your own ratings')
def calibration(add) -> None:
    add('--calibrate', metavar='CSV', help='fit the scores to these ratings; write a new checkpoint')
    add('--calibration', type=choice(CURVES, 'calibration'), metavar=among(CURVES), default='linear',
        help='curve that is fitted')
    add('--force', action='store_true',
        help='write it even if it ranks worse or in reverse, or is no better than the mean')
    add('--out', metavar='FILE', help='the new checkpoint (default: NAME-calibrated.pth beside the old one)')


@group('export', 'the files to write')
def export(add) -> None:
    add('--onnx', metavar='FILE', help='write an ONNX file')
    add('--torch_export', metavar='FILE', help='write an exported program of torch.export (.pt2)')
    add('--half', metavar='FILE', help='write the checkpoint again, with weights in half precision')
    add('--size', type=number(int, 1, 1 << 15), nargs=2, metavar=('H', 'W'),
        help='fix the size of the images; needed for pyramids (--P6, --P7) without --resize')


def one_model(args: Options) -> None:
    """Raise UserError if several checkpoints are to be published at once."""
    if len(args.checkpoint) > 1:
        raise UserError(f'{" ".join(args.checkpoint)}: a published model is one network: publish each of an ensemble '
                        'alone; test_demo.py --trained_model_file takes several, and averages their scores')


@group('publication', 'the model, and where it is published', check=one_model)
def publication(add) -> None:
    add('checkpoint', nargs='+', metavar='CHECKPOINT',
        help='a checkpoint: a file, the name of a run, letters of its digest, or latest')
    add('--to', metavar='{FOLDER,hf-hub:USER/NAME}', help='a new folder, or a model on the Hugging Face Hub')
    add('--license', metavar='NAME', default='other',
        help='license of the model as the hub names it, such as mit; the licenses of its data and of its initial '
             'weights may restrict the choice')
    add('--overwrite', action='store_true', help='replace the files of an earlier publication in the folder')
    add('--checkpoint_dir', metavar='DIR', default='checkpoints', help='folder of the checkpoints')
    add('--result_dir', metavar='DIR', default='results', help='folder of the predictions of its test images')


@group('ensemble', 'the tables of several models, and how their predictions are combined')
def ensemble(add) -> None:
    add('tables', nargs='+', metavar='TABLE', help='tables of predictions of the same images')
    add('--how', type=choice(HOW, 'combination'), metavar=among(HOW), default='iqr',
        help='iqr: the mean without values 1.5 interquartile ranges or more beyond the quartiles; mean; median')
    add('--out', metavar='FILE', default='final.csv', help='the table to write')
    add('--partial', action='store_true', help='accept images that some of the tables lack')


def check_prediction(args: Options) -> None:
    """Raise UserError if there are no models or no images."""
    if not args.models or not args.img:
        raise UserError('give --models, a folder of checkpoints, and --img, the images to score')


@group('prediction', 'the models, the images, and the folder of the tables', check=check_prediction)
def prediction(add) -> None:
    add('--models', metavar='DIR', help='folder of checkpoints')
    add('--img', nargs='+', default=[], metavar='IMAGE', help='files, folders, glob patterns, or - for a list on stdin')
    add('--recursive', action='store_true', help='look into the folders below a folder too')
    add('--out', metavar='DIR', default='result_csv', help='folder of the tables, one for each model and final.csv')
    add('--columns', type=choice(READABLE, 'form of the table'), metavar=among(READABLE), default='challenge',
        help="form of the tables, as test_demo.py's")
    add('--how', type=choice(HOW, 'way'), metavar=among(HOW), default='iqr', help='how predictions are combined')
    add('--batch_size', type=count, default=8, help='images in a batch')
    add('--num_workers', type=count, default=min(8, os.cpu_count() or 1), help='threads that decode images')
    add('--max_pixels', type=count, default=MAX_PIXELS, help='refuse larger images')


MODEL = (*of_training.NETWORK, *of_training.LOSS, *of_training.TRAINING)  # options of the run that made a checkpoint
OF_TRAINING = (of_data.data, *MODEL, of_data.split, *of_data.PREPROCESSING)

TEST = Command("""Test a trained model on a data set.

    python test_dataset.py --trained_model_file checkpoints/NAME.pth                    the set it was trained on
    python test_dataset.py --trained_model_file checkpoints/NAME.pth --dataset CLIVE    another one
    python test_dataset.py --resize -arch resnet18 --dataset CLIVE                      main.py's run of these options
""", [testing, of_data.data, views, of_data.crops, report, machine_of_several],
               [lines, of_data.places, of_data.split, of_data.preprocessing], (*MODEL, of_data.augmentation))

SCORE = Command("""Score images.

    python test_demo.py --img photo.jpg --trained_model_file checkpoints/NAME.pth         one
    python test_demo.py --img folder 'more/*.png' --trained_model_file ... --csv out.csv  many
    python test_demo.py --img D.png --ref R.png --trained_model_file ...                  one, with its reference
    python test_demo.py --img folder --trained_model_file ... --report out.html           to look at
    python test_demo.py --img 's/{000..999}.tar' --trained_model_file ... --parquet out   shards
    python test_demo.py --img clip.mp4 --trained_model_file ... --curve clip.png          each 10th frame of a video
    python test_demo.py --calibrate ratings.csv --trained_model_file ...                  fit the scores to ratings

A score can lie outside the range of the training images' MOS, even below 0: the mapping from the network's output to
MOS is an unbounded line, and an image can be worse or better than all that were rated. The output marks such scores.
Exit status: 0, 1 if some images could not be scored, 2 for a mistake in the options, 130 after Ctrl-C.
""", [images, views, output, report, machine_of_several], [of_data.crops, calibration, lines, engine, of_data.places],
                OF_TRAINING, most_used=('img', 'ref', 'recursive', 'trained_model_file', 'csv', 'json', 'resume',
                                        'overwrite', 'sort', 'map', 'report', 'views', 'about', 'device'))

EXPORT = Command("""Export a trained model with its preprocessing and mapping inside: uint8 (N, H, W, 3) in, MOS out.

    python iqa_scoring/export.py --trained_model_file checkpoints/NAME.pth --onnx model.onnx
    python iqa_scoring/export.py --trained_model_file checkpoints/NAME.pth --torch_export model.pt2
    python iqa_scoring/export.py --trained_model_file checkpoints/NAME.pth --half small.pth
""", [export, machine], [lines, of_data.crops], OF_TRAINING)

PUBLISH = Command("""Publish a trained model: as a folder of safetensors, JSON and text, or on the Hugging Face Hub.

    python iqa_scoring/publish.py checkpoints/NAME.pth --to published/NAME              look at it first
    python iqa_scoring/publish.py published/NAME --to hf-hub:USER/NAME                  upload the folder as it is
    python iqa_scoring/publish.py NAME --to hf-hub:USER/NAME --license mit              both at once
    python test_demo.py --img photo.jpg --trained_model_file published/NAME             score with it

Uploading needs the package huggingface_hub and a login (`hf auth login`). hf-hub:USER/NAME@REVISION names a branch.
""", [publication], [], OF_TRAINING)

def one_output(args: Options) -> None:
    """Raise UserError if a page is named that would not be written."""
    if args.choices and 'out' in args.given:
        raise UserError(f'--out {args.out} is the page, and --choices print the verdict: give one of them')


@group('contradictions', 'the images on which two models contradict each other', check=one_output)
def contradictions(add) -> None:
    add('files', nargs=2, metavar='FILE', help='scores of the same images: columns name, and score or pq')
    add('--im_dir', metavar='DIR', default='.', help='folder of the images')
    add('--out', metavar='FILE', default='gmad.html', help='page with the pairs and a form')
    add('--choices', nargs='+', metavar='FILE', help="people's choices, as the page saves them: print the verdict")
    add('--pairs', type=number(int, 1, 1000), default=10, help='pairs that each model calls equal')
    add('--lower_is_better', action='store_true', help='the scores fall as quality rises')


GMAD = Command("""Show people the images on which two models contradict each other most, and count their choices (gMAD).

    python iqa_scoring/gmad.py A.csv B.csv --im_dir photographs --out gmad.html       a page with a form
    python iqa_scoring/gmad.py A.csv B.csv --choices choices.csv                      the verdict
""", [contradictions])

ENSEMBLE = Command("""Combine the predictions of several models into one score for each image.

    python iqa_scoring/ensemble.py 384_fold*.csv 448_fold*.csv 640_fold*.csv --out final.csv
""", [ensemble])

PREDICT = Command("""Score images with every checkpoint in a folder, and combine the predictions.

    python iqa_scoring/predict_all.py --models weight --img test --out result_csv
""", [prediction, machine_device])
