"""ASNA: Siamese networks that compare a distorted image with its reference (team MACS, NTIRE 2021 challenge).

The order, names and sizes of the layers are those of the published networks, which were written in Keras.
"""
from collections.abc import Callable, Sequence
from types import MappingProxyType

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iqa_networks import register_model
from iqa_networks.keras import EPS, MOMENTUM, Dense, SameConv2d, channels_last_flat
from iqa_networks.network import Network
from iqa_networks.size import check_side
from iqa_runtime.errors import UserError
from iqa_runtime.option_types import Blocks, Channels, FourKernels, Share, Side, TenChannels, Weight

NFS = (8, 16, 32, 64, 64, 64, 32, 16, 8, 32)
KSS = (5, 5, 3, 3)
SIDE = 288
ENCODER = ('enc1', 'enc2', 'enc3', 'enc4')
DECODER = ('dec1', 'dec2', 'dec3', 'dec4')
DOWN = ('down1', 'down2')


class ASNA(Network):
    """Base class of the four ASNA networks.

    `forward(reference, distorted)`, each (N, 3, side, side) in -1..1 and blue first, returns one head, (N, 1).

    An encoder of four levels processes both images. The decoder begins at the deepest level of the distorted image, and
    concatenates |reference - distorted| at each level. Two convolutions shrink its map by 8, and three dense layers
    compute the score. Each convolution is followed by a LeakyReLU, and then by its batch normalisation, if any.

    Args:
        nfs: 10 numbers of channels: of the four levels of the encoder, the four levels of the decoder, and the two
            convolutions that shrink the map.
        kss: 4 kernel sizes: of the stem and the first level of the encoder, and of its other levels.
        leaky_slope: slope of the LeakyReLU below 0.
        dense_num: units of the first dense layer.
        dropout: probability that a unit of the first dense layer is dropped in training.
        img_size: height and width of the images, a multiple of 16.
        normalised: names of the convolutions with batch normalisation.
        tile_size: side of the tiles that a ConvLSTM reads instead of the whole image; None: no tiles.
        lstm_units: units of the ConvLSTM.
        wide: give both convolutions that shrink the map nfs[9] channels.
        attention: add an attention block of nfs[8] channels before the dense layers.
        num_resblocks: number of residual blocks after the attention block.
        squash: activation between the last two dense layers.
    """

    inputs, normalise, any_size = 2, 'half-bgr', False
    last = ('dense3',)
    l2_layers = MappingProxyType({'dense': ('dense1',), 'conv': ('stem', *ENCODER, *DECODER, *DOWN)})

    def __init__(self, nfs: Sequence[int], kss: Sequence[int], leaky_slope: float, dense_num: int, dropout: float,
                 img_size: int, *, normalised: Sequence[str] = (), tile_size: int | None = None, lstm_units: int = 32,
                 wide: bool = False, attention: bool = False, num_resblocks: int = 0,
                 squash: Callable[[Tensor], Tensor] = torch.sigmoid):
        super().__init__()
        _check(img_size, tile_size)
        self.side, self.leaky_slope, self.tile_size, self.squash = img_size, leaky_slope, tile_size, squash
        self.normalised = normalised
        if tile_size:
            self.convlstm = ConvLSTM(3, lstm_units)
        self.stem = SameConv2d(lstm_units if tile_size else 3, 3, kss[0])
        for name, before, after, kernel in zip(ENCODER, (3, *nfs), nfs[:4], kss, strict=False):
            self._add(name, before, after, kernel)
        self._add('dec1', nfs[3], nfs[4])
        for name, before, level, after in zip(DECODER[1:], nfs[4:7], nfs[3:0:-1], nfs[5:8], strict=True):
            self._add(name, before + level, after)
        down = nfs[9 if wide else 8]
        self._add('down1', nfs[7] + nfs[0], down, stride=4)
        self._add('down2', down, nfs[9], stride=2)
        channels = nfs[8] if attention else nfs[9]
        self.attention = Attention(nfs[9], channels) if attention else None
        self.residual = [f'res{i + 1}' for i in range(num_resblocks)]
        for name in self.residual:
            self.add_module(name, Residual(channels))
        side = (tile_size or img_size) // 8
        self.dense1 = Dense(channels * side * side, dense_num)
        self.dropout = nn.Dropout(dropout)
        self.dense2 = Dense(dense_num, 1)
        self.dense3 = Dense(1, 1)

    def _add(self, name: str, before: int, after: int, kernel: int = 3, stride: int = 1) -> None:
        self.add_module(name, SameConv2d(before, after, kernel, stride))
        if name in self.normalised:
            self.add_module(f'{name}_bn', nn.BatchNorm2d(after, EPS, MOMENTUM))

    def forward(self, reference: Tensor, distorted: Tensor) -> tuple[Tensor]:
        """Return the score of the distorted images, (N, 1) (see the class)."""
        for images in (reference, distorted):
            check_side(images, self.side, ', with --fit crop or pad if they are to keep their scale')
        of_distorted = self.encode(distorted)  # first, for the same running statistics as the original
        x = self.decode(self.encode(reference), of_distorted)
        if self.attention is not None:
            x = self.attention(x)
        for name in self.residual:
            x = self.get_submodule(name)(x)
        x = self.dropout(F.relu(self.dense1(channels_last_flat(x))))
        return (self.dense3(self.squash(self.dense2(x))),)

    def encode(self, images: Tensor) -> list[Tensor]:
        """Return the maps of the four levels, each half as wide and high as the previous level."""
        if self.tile_size:
            images = self.convlstm(tiles(images, self.tile_size))
        levels = [self.convolve('enc1', self.stem(images))]
        for name in ENCODER[1:]:
            levels.append(self.convolve(name, F.max_pool2d(levels[-1], 2)))
        return levels

    def decode(self, reference: Sequence[Tensor], distorted: Sequence[Tensor]) -> Tensor:
        """Decode the levels of both images into a map (N, nfs[9], side / 8, side / 8)."""
        x = distorted[-1]
        if self.tile_size:  # 9 x 9 in the published network, an odd side that it does not halve
            x = self.convolve('dec1', x)
        else:
            x = F.interpolate(self.convolve('dec1', F.max_pool2d(x, 2)), scale_factor=2)
        differences = [(r - d).abs() for r, d in zip(reference, distorted, strict=True)][::-1]
        for name, difference in zip(DECODER[1:], differences, strict=False):
            x = F.interpolate(self.convolve(name, torch.cat((x, difference), 1)), scale_factor=2)
        x = torch.cat((x, differences[-1]), 1)
        for name in DOWN:
            x = self.convolve(name, x)
        return x

    def convolve(self, name: str, x: Tensor) -> Tensor:
        """Apply a convolution by name, the LeakyReLU, and the convolution's batch normalisation, if any."""
        x = F.leaky_relu(self.get_submodule(name)(x), self.leaky_slope)
        return self.get_submodule(f'{name}_bn')(x) if name in self.normalised else x


class Attention(nn.Module):
    """Weight a map by channel attention and by spatial attention, and fuse; (N, before, H, W) -> (N, after, H, W)."""

    def __init__(self, before: int, after: int):
        super().__init__()
        self.conv1 = SameConv2d(before, after, 3)
        self.bn = nn.BatchNorm2d(after, EPS, MOMENTUM)
        self.conv2 = SameConv2d(after, after, 3)
        self.channel1, self.channel2 = SameConv2d(after, after, 1), SameConv2d(after, after, 1)
        self.spatial1, self.spatial2 = SameConv2d(after, after, 1), SameConv2d(after, after, 1)
        self.fuse = SameConv2d(before + 2 * after, after, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return the fused map (see the class)."""
        z = self.conv2(self.bn(F.relu(self.conv1(x))))
        channel = torch.sigmoid(self.channel2(F.relu(self.channel1(z.mean((2, 3), keepdim=True)))))
        spatial = torch.sigmoid(self.spatial2(F.relu(self.spatial1(z))))
        return self.fuse(torch.cat((x, z * channel, z * spatial), 1))


class Residual(nn.Module):
    """A residual block, x + conv(ReLU(conv(x))) with 3x3 kernels, without normalisation or final activation."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv1 = SameConv2d(channels, channels, 3)
        self.conv2 = SameConv2d(channels, channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Return the sum (see the class)."""
        return x + self.conv2(F.relu(self.conv1(x)))


def _check(img_size: int, tile_size: int | None) -> None:
    if tile_size and (img_size % tile_size or tile_size % 8):
        raise UserError(f'--tile_size {tile_size}: expected a multiple of 8 that divides --img_size {img_size}')
    if not tile_size and img_size % 16:
        raise UserError(f'--img_size {img_size}: expected a multiple of 16')


# The four networks; their arguments are those of ASNA

@register_model('asna_simple', system='ASNA')
@register_model('asna_simple_a', system='ASNA', nfs=(*NFS[:9], 16), leaky_slope=.7)
@register_model('asna_simple_b', system='ASNA')
class ASNASimple(ASNA):
    """ASNA without batch normalisation.

    Args:
        nfs: channels of ASNA's convolutions (default: 8 16 32 64 64 64 32 16 8 32; asna_simple_a ends in 16).
        kss: kernel sizes of ASNA's encoder (default: 5 5 3 3).
        leaky_slope: slope of LeakyReLU below 0 (default: .5; asna_simple_a .7).
        dense_num: units of ASNA's first dense layer.
        dropout: probability of dropout.
        img_size: height and width of the images: a multiple of 64 for MANIQA (32 for maniqa_224), of 16 for ASNA
            (default: MANIQA: the number in the network's name; ASNA: 288).
    """

    def __init__(self, nfs: TenChannels = NFS, kss: FourKernels = KSS, leaky_slope: Weight = .5,
                 dense_num: Channels = 32, dropout: Share = 0., img_size: Side = SIDE):
        super().__init__(nfs, kss, leaky_slope, dense_num, dropout, img_size)


@register_model('asna_bn', system='ASNA')
class ASNABatchNorm(ASNA):
    """ASNA with batch normalisation in the encoder and the decoder."""

    def __init__(self, nfs: TenChannels = NFS, kss: FourKernels = KSS, leaky_slope: Weight = .5,
                 dense_num: Channels = 32, dropout: Share = 0., img_size: Side = SIDE):
        super().__init__(nfs, kss, leaky_slope, dense_num, dropout, img_size, normalised=ENCODER + DECODER)


@register_model('asna_attention', system='ASNA')
class ASNAAttention(ASNA):
    """ASNA with an attention block, residual blocks, batch normalisation after all convolutions, and a tanh.

    Args:
        num_resblocks: number of residual blocks.
        attention: include the attention block.
    """

    def __init__(self, nfs: TenChannels = NFS, kss: FourKernels = KSS, leaky_slope: Weight = .5,
                 dense_num: Channels = 32, dropout: Share = 0., img_size: Side = SIDE, num_resblocks: Blocks = 3,
                 attention: bool = True):
        super().__init__(nfs, kss, leaky_slope, dense_num, dropout, img_size, normalised=ENCODER + DECODER + DOWN,
                         wide=True, attention=attention, num_resblocks=num_resblocks, squash=torch.tanh)


@register_model('asna_tiled', system='ASNA')
class ASNATiled(ASNA):
    """ASNA with a ConvLSTM that reads the images tile by tile.

    Args:
        tile_size: side of a tile.
        lstm_units: units of the ConvLSTM.
    """

    def __init__(self, nfs: TenChannels = NFS, kss: FourKernels = KSS, leaky_slope: Weight = .5,
                 dense_num: Channels = 32, dropout: Share = 0., img_size: Side = SIDE, tile_size: Channels = 72,
                 lstm_units: Channels = 32):
        super().__init__(nfs, kss, leaky_slope, dense_num, dropout, img_size, tile_size=tile_size,
                         lstm_units=lstm_units)


# A convolutional LSTM (Shi et al., NeurIPS 2015) as in Keras: with a hard sigmoid and one bias

def hard_sigmoid(x: Tensor) -> Tensor:
    """Return clip(x / 5 + 1/2, 0, 1), Keras's hard sigmoid; torch's is less steep, x / 6 + 1/2."""
    return (.2 * x + .5).clamp(0, 1)


class ConvLSTM(nn.Module):
    """Read a sequence of maps (N, T, C, H, W); return the last hidden state (N, units, H, W).

    With * a convolution that keeps the size, for each step t:
    i, f, o = hard_sigmoid(W * x_t + b + U * h), c = f c + i tanh(W * x_t + b + U * h), h = o tanh(c), each with its own
    part of W, U, b. The four parts i, f, c, o are stacked on the output channels of `input` and `recurrent`.

    Args:
        channels: C.
        units: channels of the hidden state.
        kernel: side of both convolutions.
    """

    def __init__(self, channels: int, units: int, kernel: int = 5):
        super().__init__()
        self.units = units
        self.input = SameConv2d(channels, 4 * units, kernel)
        self.recurrent = SameConv2d(units, 4 * units, kernel, bias=False)
        nn.init.orthogonal_(self.recurrent.weight)
        nn.init.ones_(self.input.bias[units:2 * units])  # the forget gate starts open

    def forward(self, sequence: Tensor) -> Tensor:
        """Return the last hidden state (see the class)."""
        n, steps = sequence.shape[:2]
        inputs = self.input(sequence.flatten(0, 1)).unflatten(0, (n, steps))  # all steps at once
        hidden = cell = inputs.new_zeros(n, self.units, *inputs.shape[3:])
        for step in range(steps):
            i, f, c, o = (inputs[:, step] + self.recurrent(hidden)).chunk(4, 1)
            cell = hard_sigmoid(f) * cell + hard_sigmoid(i) * torch.tanh(c)
            hidden = hard_sigmoid(o) * torch.tanh(cell)
        return hidden


def tiles(images: Tensor, size: int) -> Tensor:
    """Cut images (N, C, H, W) into squares of side `size`, row by row: (N, H W / size^2, C, size, size)."""
    rows = images.unfold(2, size, size).unfold(3, size, size)  # (N, C, H / size, W / size, size, size)
    return rows.permute(0, 2, 3, 1, 4, 5).flatten(1, 2)
