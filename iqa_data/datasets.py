"""The known data sets: where their images and info files lie, and how several are named."""
import re
from dataclasses import dataclass, replace
from pathlib import Path

from iqa_runtime.errors import UserError, one_line
from iqa_runtime.names import without_suffix

TEXTS = ('.csv', '.tsv', '.txt')  # suffixes of tables
SUFFIXES = (*TEXTS, '.mat')  # of info files


@dataclass(frozen=True)
class Source:
    """The files of a data set, instructions to get it, and the settings that the paper fixes for it."""

    im_dir: str
    info: str
    how_to_get: str
    ratios: tuple[float, float] | None = None  # of the official split: train, train and val; None: the options say
    size: tuple[int, int] | None = None        # (h, w) of all its images
    first_resize: tuple[int, int] | None = None  # (h, w) that every image is brought to before anything else
    ref_dir: str | None = None                   # folder of the reference images; None: that of the images


DATASETS = {
    'KonIQ-10k': Source('./KonIQ-10k', './data/KonIQ-10kinfo.mat',
                        'download the 1024x768 images and the tables of KonIQ-10k from its authors and link the '
                        'images: ln -s IMAGES KonIQ-10k; '
                        'python data/make_info.py koniq10k --source TABLES writes the info file',
                        ratios=(7058 / 10073, 8058 / 10073), size=(768, 1024)),
    'CLIVE': Source('./CLIVE', './data/CLIVEinfo.mat',
                    'request LIVE In the Wild (CLIVE) from its authors and link the images: ln -s IMAGES CLIVE; '
                    'python data/make_info.py clive --source TABLES writes the info file',
                    first_resize=(500, 500)),
    'AGIQA-3K': Source('./AGIQA-3K', './data/AGIQA-3K.csv',
                       'download the images and data.csv of AGIQA-3K from its authors and link the images: '
                       'ln -s IMAGES AGIQA-3K; '
                       'python data/make_info.py agiqa3k --source TABLES writes the info file'),
    'PIPAL': Source('./PIPAL/training_inp', './data/PIPAL.csv',
                    'download the training set of PIPAL (NTIRE 2021) from its authors and link the folder: '
                    'ln -s FOLDER PIPAL; python data/make_info.py pipal --source PIPAL writes the info file',
                    size=(288, 288), ref_dir='./PIPAL/Train_Ref'),
    'asna_pretrain': Source('./asna_pretrain', './data/asna_pretrain.csv',
                            'download PieAPP, TID2013 and TID2008 from their authors into the folders PieAPPdataset, '
                            'tid2013, tid2008 of one folder, and link that: ln -s FOLDER asna_pretrain; '
                            'python data/make_info.py asna_pretrain --source asna_pretrain writes the info file'),
    'Samsung-2023': Source('./Samsung-2023', './data/samsung.csv',
                           'download the photographs of the 2023 Samsung AI Challenge (image quality) and link the '
                           'folder, which has train.csv and train/: ln -s FOLDER Samsung-2023; '
                           'python data/make_info.py samsung --source Samsung-2023 writes the info file'),
    'demo': Source('./data/demo/images', './data/demo/demo.csv', 'python data/make_demo.py',
                   ref_dir='./data/demo/references'),
}


def sets_of(dataset: str) -> list[str]:
    """Return the data sets that the option names, with + between several: names in DATASETS, or info files.

    >>> sets_of('KonIQ-10k+lab/c++.csv+d.csv')
    ['KonIQ-10k', 'lab/c++.csv', 'd.csv']
    """
    known = [rf'(?<={before}{re.escape(name)})' for name in DATASETS for before in ('^', r'\+')]
    ends = '|'.join([*known, *(rf'(?<={re.escape(suffix)})' for suffix in SUFFIXES)])
    return re.split(rf'(?:{ends})\+', dataset, flags=re.IGNORECASE)


def source_of(dataset: str) -> Source:
    """Return the row of DATASETS, or for an info file a new row, with the images in the same folder."""
    if dataset in DATASETS:
        return DATASETS[dataset]
    return Source(str(Path(dataset).parent), dataset, '--dataset is an info file, --im_dir the folder of its images')


def named_source(dataset: str, im_dir: str | None, data_info: str | None, ref_dir: str | None = None) -> Source:
    """Return the source of a data set, with the folders and the info file that the user gave instead of its own."""
    source = source_of(dataset)
    info = data_info if data_info and dataset in DATASETS else source.info
    own = None if im_dir else source.ref_dir
    return replace(source, im_dir=im_dir or source.im_dir, info=info, ref_dir=ref_dir or own)


def require(source: Source, name: str) -> None:
    """Raise UserError, with instructions to get the data set, if its info file or its folder is missing."""
    for path in (source.info, source.im_dir):
        if not Path(path).exists():
            raise UserError(f'{path} not found, which {name} needs: {source.how_to_get} '
                            f'(--im_dir and --data_info name other places; --dataset demo needs no download)')


def dataset_name(dataset: str) -> str:
    """Return the name of a data set in logs, results and files: its own, or an info file's without folder, suffix.

    >>> dataset_name('KonIQ-10k+lab/b.csv')
    'KonIQ-10k+b'
    """
    return '+'.join(names_of(dataset))


def names_of(dataset: str) -> tuple[str, ...]:
    """Return the name of each data set that the option names (see `dataset_name`)."""
    return tuple(one if one in DATASETS else one_line(without_suffix(Path(one).name, SUFFIXES))
                 for one in sets_of(dataset))
