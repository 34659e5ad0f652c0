"""The paper's own numbers, once. A number that is not known to us is None here and 'not known' in every table.

D. Li, T. Jiang, M. Jiang: Norm-in-Norm Loss with Faster Convergence and Better Performance for Image Quality
Assessment. ACM Multimedia 2020, arXiv 2008.03889. Each table below says which figure or table it is from.
Networks were trained on KonIQ-10k; its test part has 2015 images, CLIVE is tested as a whole (1162 images).
"""
from results_in_the_paper.driver.settings import LOSS_NAMES

TOLERANCE = .003  # three runs of one setting by the authors differ by this much SROCC
UNKNOWN = 'not known'


def _grid(columns: tuple[str, ...], **rows: str) -> dict[tuple[str, str], float | None]:
    """Spread rows of numbers, '-' where not known, over {(row, column): number}; 'norm' is short for norm-in-norm."""
    table = {}
    for row, text in rows.items():
        values = [None if word == '-' else float(word) for word in text.split()]
        table |= {('norm-in-norm' if row == 'norm' else row, column): value
                  for column, value in zip(columns, values, strict=True)}
    return table


# Figure 5: the best PLCC on the validation part, ResNet-50; keys (loss, value).
FIGURE5 = {
    'lr': _grid(('1e-3', '1e-4', '1e-5'), mae='.634 .885 .084', mse='.503 .898 .805', norm='.911 .931 .907'),
    'bs': _grid(('4', '8', '16'), mae='.232 .893 .875', mse='.756 .898 .895', norm='.910 .931 .936'),
    'ft_lr_ratio': _grid(('0', '0.01', '0.1', '1'), mae='.822 .842 .893 .379', mse='.835 .858 .898 .866',
                         norm='.899 .911 .931 .912'),
}
# The runs of Figure 5 that stopped before the last epoch, as (sweep, loss, value).
FIGURE5_STOPS = (('lr', 'mse', '1e-3'), ('lr', 'mae', '1e-3'), ('ft_lr_ratio', 'mae', '1'))

# Figure 6: the criterion shown for each data set; keys (loss, backbone).
_BACKBONES = ('resnet18', 'resnet34', 'resnet50', 'resnext101_32x8d')
FIGURE6 = {
    ('KonIQ-10k', 'PLCC'): _grid(_BACKBONES, mae='.880 .891 .893 .919', mse='.869 .899 .905 .923',
                                 norm='.918 .926 .930 .947'),
    ('CLIVE', 'SROCC'): _grid(_BACKBONES, mae='.712 .729 .746 .766', mse='.734 .762 .776 .789',
                              norm='.767 .787 .799 .834'),
}

# Figure 7: RMSE on the MOS scale, ResNeXt-101; keys (loss, data set).
FIGURE7 = _grid(('KonIQ-10k', 'CLIVE'), mae='6.105 16.416', mse='5.955 14.714', norm='5.042 14.942')

# Table 1: p and q by backbone; the rows p = 1, q = 2 are those of Figure 6 and of Table 2.
# Keys (backbone, p, q), values by criterion on KonIQ-10k's test part.
TABLE1 = {(backbone, 1, 2): {'PLCC': FIGURE6['KonIQ-10k', 'PLCC']['norm-in-norm', backbone]}
          for backbone in _BACKBONES}
TABLE1['resnext101_32x8d', 1, 2]['SROCC'] = .937

# Table 2, as corrected in the README of the authors' code: keys (alpha, data set).
TABLE2 = {
    ((1, 0), 'KonIQ-10k'): {'SROCC': .937, 'PLCC': .947}, ((1, 0), 'CLIVE'): {'SROCC': .834, 'PLCC': .849},
    ((1, .1), 'KonIQ-10k'): {'SROCC': .937, 'PLCC': .946}, ((1, .1), 'CLIVE'): {'SROCC': .834, 'PLCC': .850},
    ((0, 1), 'KonIQ-10k'): {'SROCC': .937, 'PLCC': .947}, ((0, 1), 'CLIVE'): {'SROCC': .831, 'PLCC': .847},
    ((1, 1), 'KonIQ-10k'): {'SROCC': .937, 'PLCC': .947}, ((1, 1), 'CLIVE'): {'SROCC': .836, 'PLCC': .848},
}

TABLE_A1 = {}  # optimizers by learning rate: not known
TABLE_A2 = {}  # AlexNet and VGG-16: not known
T_TEST = dict.fromkeys(LOSS_NAMES)  # PLCC on CLIVE, ResNet-18, ten splits: not known


def show(value: float | None, digits: int = 3) -> str:
    """Write a number of the paper, or that it is not known."""
    return UNKNOWN if value is None else f'{value:.{digits}f}'
