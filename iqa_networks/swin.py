"""Swin stages that keep the size of their map: windowed self-attention, convolutions, a scaled residual.

Windows and shifts are those of Liu et al., *Swin Transformer* (ICCV 2021); the scaled residual around each layer is
MANIQA's (Yang et al., CVPR Workshops 2022). Maps are (N, C, H, W) outside, (N, H, W, C) within the blocks.
"""
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torchvision.ops import StochasticDepth

ACROSS = -100.  # added to the attention logits between tokens that only the shift brought into one window


class SwinStage(nn.Module):
    """Layers of Swin blocks with `x <- scale layer(x) + x` around each. `forward(x)`, (N, dim, side, side) -> the same.

    Args:
        side: height and width of the maps, a multiple of `window_size`.
        dim: channels, a multiple of each of `num_heads`.
        depths: blocks in each layer; every second block shifts its windows by half a window, unless one window is the
            whole map.
        num_heads: attention heads in each layer.
        window_size: height and width of the windows.
        dim_mlp: hidden units of the blocks' MLPs.
        scale: weight of a layer's output beside its input.
        dropout: probability of dropout on the input.
        drop_path: largest rate of stochastic depth; it rises from 0 over the blocks of the stage.
        checkpoint_activations: see `run`.
    """

    def __init__(self, side: int, dim: int, depths: Sequence[int] = (2, 2), num_heads: Sequence[int] = (4, 4),
                 window_size: int = 4, dim_mlp: int = 768, scale: float = .8, dropout: float = .1,
                 drop_path: float = .1, checkpoint_activations: bool = False):
        super().__init__()
        if side % window_size:
            raise ValueError(f'side {side} is not a multiple of window_size {window_size}')
        self.scale, self.checkpoint_activations = scale, checkpoint_activations
        # the original never calls this convolution: it is kept for the names in its checkpoints
        self.downsample = nn.Conv2d(dim, dim, 3, stride=2, padding=1).requires_grad_(False)
        last = max(1, sum(depths) - 1)
        rates = iter(drop_path * i / last for i in range(sum(depths)))
        self.layers = nn.ModuleList(
            SwinLayer(side, dim, heads, window_size, dim_mlp, [next(rates) for _ in range(depth)])
            for depth, heads in zip(depths, num_heads, strict=True))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Return the map after all layers (see the class)."""
        x = self.dropout(x)
        for layer in self.layers:
            x = self.scale * run_checkpointed(layer, x, self.checkpoint_activations) + x
        return x


class SwinLayer(nn.Module):
    """Swin blocks, a block for each rate in `drop_path`, and a 3x3 convolution with ReLU; (N, dim, side, side) -> same.
    """

    def __init__(self, side: int, dim: int, num_heads: int, window_size: int, dim_mlp: int, drop_path: Sequence[float]):
        super().__init__()
        self.conv = nn.Conv2d(dim, dim, 3, padding=1)
        shift = window_size // 2 if side > window_size else 0
        self.blocks = nn.ModuleList(
            SwinBlock(side, dim, num_heads, window_size, i % 2 * shift, dim_mlp, rate)
            for i, rate in enumerate(drop_path))

    def forward(self, x: Tensor) -> Tensor:
        """Return the map after the blocks and the convolution."""
        x = x.permute(0, 2, 3, 1)
        for block in self.blocks:
            x = block(x)
        return F.relu(self.conv(x.permute(0, 3, 1, 2)))


class SwinBlock(nn.Module):
    """Attention within windows that are moved by `shift`, then an MLP, each with layer normalisation and a residual.

    `forward(x)`, (N, side, side, dim) -> the same. `attn_mask` (windows, tokens, tokens) separates tokens that are in
    one window only because the map is rolled around its borders.
    """

    def __init__(self, side: int, dim: int, num_heads: int, window_size: int, shift: int, dim_mlp: int,
                 drop_path: float = 0.):
        super().__init__()
        self.window_size, self.shift = window_size, shift
        self.norm1 = nn.LayerNorm(dim)
        self.attn = WindowAttention(dim, num_heads, window_size)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = MLP(dim, dim_mlp)
        self.drop_path = StochasticDepth(drop_path, 'row')
        self.register_buffer('attn_mask', shift_mask(side, window_size, shift) if shift else None)

    def forward(self, x: Tensor) -> Tensor:
        """Return the map after both parts."""
        x = x + self.drop_path(self._attend(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))

    def _attend(self, x: Tensor) -> Tensor:
        side = x.shape[1]
        if self.shift:
            x = x.roll((-self.shift, -self.shift), (1, 2))
        x = from_windows(self.attn(to_windows(x, self.window_size), self.attn_mask), side)
        return x.roll((self.shift, self.shift), (1, 2)) if self.shift else x


class WindowAttention(nn.Module):
    """Multi-head self-attention of (N, windows, tokens, dim), with a learned bias for each offset of two tokens."""

    def __init__(self, dim: int, num_heads: int, window_size: int):
        super().__init__()
        self.num_heads = num_heads
        self.relative_position_bias_table = nn.Parameter(torch.empty((2 * window_size - 1) ** 2, num_heads))
        self.register_buffer('relative_position_index', relative_positions(window_size))
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        nn.init.trunc_normal_(self.relative_position_bias_table, std=.02)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return (N, windows, tokens, dim); `mask` (windows, tokens, tokens) is added to the attention's logits."""
        n, windows, tokens, dim = x.shape
        qkv = self.qkv(x).view(n * windows, tokens, 3, self.num_heads, dim // self.num_heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        bias = self.relative_position_bias_table[self.relative_position_index].permute(2, 0, 1)[None]
        if mask is not None:
            bias = (bias + mask[:, None]).repeat(n, 1, 1, 1)
        y = F.scaled_dot_product_attention(q, k, v, bias.to(q.dtype))
        return self.proj(y.transpose(1, 2).reshape(n, windows, tokens, dim))


class MLP(nn.Module):
    """Two linear layers with a GELU between them, on the last axis."""

    def __init__(self, dim: int, hidden: int):
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Return the same shape."""
        return self.fc2(F.gelu(self.fc1(x)))


def run_checkpointed(module: nn.Module, x: Tensor, checkpoint_activations: bool) -> Tensor:
    """Return module(x); with `checkpoint_activations`, its activations are recomputed in the backward pass."""
    again = checkpoint_activations and torch.is_grad_enabled()
    return checkpoint(module, x, use_reentrant=False) if again else module(x)


def to_windows(x: Tensor, size: int) -> Tensor:
    """Cut (N, H, W, C) into windows: (N, windows, size^2, C); windows and their tokens are in row-major order."""
    n, height, width, channels = x.shape
    x = x.reshape(n, height // size, size, width // size, size, channels).transpose(2, 3)
    return x.reshape(n, -1, size * size, channels)


def from_windows(x: Tensor, side: int) -> Tensor:
    """Reassemble windows (N, windows, tokens, C) into maps (N, side, side, C)."""
    n, _, tokens, channels = x.shape
    size = int(tokens ** .5)
    x = x.reshape(n, side // size, side // size, size, size, channels).transpose(2, 3)
    return x.reshape(n, side, side, channels)


def relative_positions(size: int) -> Tensor:
    """Return the row in the table of biases for each pair of a query's and a key's token, (size^2, size^2)."""
    place = torch.stack(torch.meshgrid(torch.arange(size), torch.arange(size), indexing='ij')).flatten(1)
    dy, dx = place[:, :, None] - place[:, None, :] + size - 1
    return dy * (2 * size - 1) + dx


def shift_mask(side: int, size: int, shift: int) -> Tensor:
    """Return the mask (windows, tokens, tokens): ACROSS between tokens that only the shift brought together, else 0.

    After the roll, each row and each column belongs to one of three bands, which end at side - size, side - shift and
    side; tokens were neighbours before the roll only if both their bands are equal.
    """
    band = torch.bucketize(torch.arange(side), torch.tensor([side - size, side - shift]), right=True)
    region = to_windows((3 * band[:, None] + band).view(1, side, side, 1), size)[0, :, :, 0]
    return (region[:, :, None] != region[:, None, :]).float() * ACROSS
