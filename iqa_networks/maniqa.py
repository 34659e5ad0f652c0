"""MANIQA: intermediate features of a vision transformer, attention over channels, Swin stages, weighted patch scores.

Yang et al., *MANIQA: Multi-dimension Attention Network for No-Reference Image Quality Assessment* (CVPR Workshops 2022,
arXiv 2204.08958). `maniqa_224` is the paper's network; `maniqa_384`, `maniqa_448` and `maniqa_640` are those of an
entry to the 2023 Samsung AI Challenge, with patches of 16 pixels, smaller heads and more dropout. The ViT is built by
timm, which is imported only then.
"""
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iqa_networks import register_model
from iqa_networks.network import Network
from iqa_networks.packaged import without_package
from iqa_networks.pretrained import load_part, read_weights
from iqa_networks.size import check_side
from iqa_networks.swin import SwinStage, run_checkpointed
from iqa_networks.timm_backbone import downloaded, import_timm
from iqa_runtime.errors import UserError
from iqa_runtime.option_types import Share, Side

TAPS = (6, 7, 8, 9)  # blocks of the ViT, counted from 0, whose outputs are the features
WINDOW = 4           # side of the Swin stages' windows, in patches
VIT = 'vit_base_patch16_384.augreg_in21k_ft_in1k'


@register_model('maniqa_224', system='MANIQA', vit='vit_base_patch8_224.augreg_in21k_ft_in1k', hidden=384, dropout=.1,
                img_size=224)
@register_model('maniqa_384', system='MANIQA', vit=VIT, hidden=96, dropout=.5, img_size=384)
@register_model('maniqa_448', system='MANIQA', vit=VIT, hidden=96, dropout=.5, img_size=448)
@register_model('maniqa_640', system='MANIQA', vit=VIT, hidden=96, dropout=.5, img_size=640)
@register_model('maniqa_tiny', system='MANIQA', vit='vit_tiny_patch16_384.augreg_in21k_ft_in1k', hidden=24, dropout=.1,
                img_size=128)  # not published: for tests and demonstrations
class MANIQA(Network):
    """MANIQA. `forward(x)`, x (N, 3, img_size, img_size) in [-1, 1], returns (score,), (N, 1).

    Every patch has a score f >= 0 and a weight w in 0..1; the image's score is sum(f w) / sum(w). State-dict names are
    the original's. For these names, layers on which the score does not depend are kept (the ViT's last two blocks, norm
    and head, and a convolution in each Swin stage); they are not computed and have no gradient.

    Args:
        vit: timm's name of a ViT of at least 10 blocks.
        hidden: hidden units of the two heads.
        dropout: probability of dropout in the two heads.
        img_size: height and width of the images, a multiple of 4 patches.
        checkpoint_activations: recompute activations instead of keeping them, for less memory; the results are equal.
        weights: weights of the ViT: 'imagenet' (timm's of that name, downloaded), None (random), or the path of a state
            dict of the same ViT; the position table is resampled to `img_size`.
    """

    normalise = 'half'
    any_size = False
    last = ('fc_score.3',)

    def __init__(self, vit: str, hidden: int, dropout: Share, img_size: Side, checkpoint_activations: bool = False,
                 weights: str | Path | None = None):
        super().__init__()
        self.vit = build_vit(vit, img_size, weights)
        self.vit.set_grad_checkpointing(checkpoint_activations)
        self.side, self.grid = img_size, self.vit.patch_embed.grid_size[0]
        self.checkpoint_activations = checkpoint_activations
        dim, tokens = self.vit.embed_dim, self.grid ** 2
        stage = partial(SwinStage, self.grid, window_size=WINDOW, dim_mlp=dim,
                        checkpoint_activations=checkpoint_activations)
        self.tablock1 = nn.ModuleList(TABlock(tokens) for _ in range(2))
        self.conv1 = nn.Conv2d(dim * len(TAPS), dim, 1)
        self.swintransformer1 = stage(dim)
        self.tablock2 = nn.ModuleList(TABlock(tokens) for _ in range(2))
        self.conv2 = nn.Conv2d(dim, dim // 2, 1)
        self.swintransformer2 = stage(dim // 2)
        self.fc_score = _head(dim // 2, hidden, dropout, nn.ReLU())
        self.fc_weight = _head(dim // 2, hidden, dropout, nn.Sigmoid())
        nn.init.constant_(self.fc_score[3].bias, .5)  # with a bias below 0, all scores could stay at ReLU's 0

    @property
    def backbone(self) -> nn.Module:
        """Return the vision transformer."""
        return self.vit

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return (score,), (N, 1) (see the class)."""
        f, w = self.weighed(x)
        return ((f * w).sum((2, 3)) / w.sum((1, 2))).T,

    def predict(self, distribution: nn.Module) -> None:
        """Let the patches predict distributions, whose outputs have no ReLU at their end."""
        super().predict(distribution)
        self.fc_score[-1] = nn.Identity()

    def patches(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the score f and the weight w of every patch, each (N, grid, grid), in float32 or float64."""
        f, w = self.weighed(x)
        return self.mean(f.movedim(0, -1))[..., 0], w

    def weighed(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the outputs (C, N, grid, grid) and weights (N, grid, grid) of all patches, in float32 or float64."""
        check_side(x, self.side, ', or another --img_size')
        x = self.features(x)
        x = self.conv1(self._attend(self.tablock1, x).unflatten(2, (self.grid, self.grid)))
        x = self._attend(self.tablock2, self.swintransformer1(x).flatten(2))
        x = self.swintransformer2(self.conv2(x.unflatten(2, (self.grid, self.grid)))).permute(0, 2, 3, 1)
        f, w = self.fc_score(x).movedim(-1, 0), self.fc_weight(x)[..., 0]
        wide = torch.promote_types(f.dtype, torch.float32)  # sums over patches are inaccurate in half precision
        return f.to(wide), w.to(wide)

    def features(self, x: Tensor) -> Tensor:
        """Return the outputs of the four tapped blocks for all patches, (N, 4 dim, patches), without the class token.
        """
        taps = self.vit.forward_intermediates(x, indices=list(TAPS), stop_early=True, output_fmt='NLC',
                                              intermediates_only=True)
        return torch.cat(taps, 2).transpose(1, 2)

    def local(self, x: Tensor, window: int = 1, head: int = -1) -> tuple[Tensor, Tensor]:
        """Return the score and the weight of every patch (see `patches`); `window` and `head` have no effect."""
        return self.patches(x)

    def _attend(self, blocks: nn.ModuleList, x: Tensor) -> Tensor:
        for block in blocks:
            x = run_checkpointed(block, x, self.checkpoint_activations)
        return x


class TABlock(nn.Module):
    """Transposed attention: the C channels, vectors of `dim` numbers, attend to one another. (N, C, dim) -> the same.

    Computes softmax(q k^T / sqrt(dim)) v, with q, k, v linear in x; then the reshaping described in `forward`, dropout,
    and the sum with x.
    """

    def __init__(self, dim: int, dropout: float = .1):
        super().__init__()
        self.c_q, self.c_k, self.c_v = (nn.Linear(dim, dim) for _ in range(3))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, C, dim).

        The original transposes the result to (N, dim, C) and reshapes it to (N, C, dim), which does not undo the
        transposition but shuffles the numbers over channels and patches. The published weights are trained with it.
        """
        q, k, v = (layer(x)[:, None] for layer in (self.c_q, self.c_k, self.c_v))  # one head
        y = F.scaled_dot_product_attention(q, k, v)[:, 0]
        return self.dropout(y.transpose(1, 2).reshape(x.shape)) + x


def _head(dim: int, hidden: int, dropout: float, end: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Linear(dim, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, 1), end)


def build_vit(name: str, img_size: int, weights: str | Path | None) -> nn.Module:
    """Build timm's ViT with weights (see MANIQA); layers after the last tapped block are frozen."""
    timm = import_timm('MANIQA, whose vision transformer is timm\'s,')
    patch = int(name.split('_patch')[1].split('_')[0])
    if img_size < 1 or img_size % (WINDOW * patch):
        raise UserError(f'--img_size {img_size}: expected a multiple of {WINDOW * patch}: patches of {patch}x{patch} '
                        f'pixels are cut into windows of {WINDOW}x{WINDOW}')
    if weights == 'pypi':
        raise without_package(name)
    build = partial(timm.create_model, name, img_size=img_size)
    vit = downloaded(name, build) if weights == 'imagenet' else build()
    if weights not in (None, 'imagenet'):
        load_vit(vit, name, weights)
    for unused in (*vit.blocks[TAPS[-1] + 1:], vit.norm, vit.head):
        unused.requires_grad_(False)
    return vit


def load_vit(vit: nn.Module, name: str, path: str | Path) -> None:
    """Load a state dict of the same ViT, for images of any size, from a file in torch's or safetensors' format."""
    state, table = read_weights(path), 'pos_embed'
    if table in state and state[table].ndim == 3:
        state[table] = resample_position_embedding(state[table], vit.patch_embed.grid_size[0])
    load_part(vit, path, state, {name: name for name in vit.state_dict()}, name)


def resample_position_embedding(table: Tensor, side: int) -> Tensor:
    """Resample a ViT's position table (1, 1 + n^2, C) to side x side patches: (1, 1 + side^2, C).

    The interpolation is bicubic with antialiasing, as in timm; the class token, which comes first, is kept.
    """
    token, patches = table[:, :1], table[:, 1:]
    old = round(patches.shape[1] ** .5)
    if old ** 2 != patches.shape[1]:
        raise UserError(f'a position table of {patches.shape[1]} patches is not square')
    if old == side:
        return table
    grid = patches.reshape(1, old, old, -1).permute(0, 3, 1, 2).float()
    grid = F.interpolate(grid, (side, side), mode='bicubic', antialias=True, align_corners=False)
    return torch.cat([token, grid.flatten(2).transpose(1, 2).to(table.dtype)], 1)
