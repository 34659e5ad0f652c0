"""MANIQA: parts against slow oracles, properties of the whole, the recorded numbers."""
import json

import numpy as np
import pytest
import torch
from golden import cases, filling, images, recorded
from torch.testing import assert_close

from iqa_networks.maniqa import TABlock, load_vit, resample_position_embedding
from iqa_networks.pretrained import load_pretrained
from iqa_networks.swin import SwinStage
from iqa_runtime.errors import UserError
from iqa_scoring.views import variants
from IQAmodel import create_model

pytestmark = pytest.mark.usefixtures('one_thread')


def drawn(*shape, seed=0):
    return torch.tensor(np.random.RandomState(seed).normal(size=shape))


@pytest.fixture(scope='module')
def tiny():
    torch.manual_seed(0)
    return create_model('maniqa_tiny', img_size=64).eval()


# Parts

def test_transposed_attention_against_loops():
    block, x = TABlock(9).double().eval(), drawn(2, 4, 9)
    q, k, v = ((x @ layer.weight.T + layer.bias).detach().numpy() for layer in (block.c_q, block.c_k, block.c_v))
    for n in range(2):
        rows = []
        for c in range(4):
            logits = np.array([q[n, c] @ k[n, d] / 3 for d in range(4)])
            weights = np.exp(logits) / np.exp(logits).sum()
            rows.append(sum(weights[d] * v[n, d] for d in range(4)))
        shuffled = np.array([rows[c][i] for i in range(9) for c in range(4)]).reshape(4, 9)
        assert_close(block(x)[n].detach(), torch.tensor(shuffled) + x[n], rtol=0, atol=1e-12)


def plain_block(block, x):
    """A Swin block on one map (side, side, C), token by token: attention within windows of the shifted map."""
    side, size, shift, heads = len(x), block.window_size, block.shift, block.attn.num_heads
    table, width = block.attn.relative_position_bias_table, x.shape[2] // heads
    q, k, v = block.attn.qkv(block.norm1(x)).unflatten(2, (3, heads, width)).unbind(2)
    y = torch.zeros_like(x)
    for a in range(side * side):
        i, j = divmod(a, side)
        window = [((i - shift) % side // size, (j - shift) % side // size)]
        others = []
        for m in range(side):
            for n in range(side):
                # in the rolled map; a window must not reach over the border of the map
                same = ((m - shift) % side // size, (n - shift) % side // size) == window[0]
                if same and abs(m - i) < size and abs(n - j) < size:
                    others.append((m, n))
        for h in range(heads):
            logits = torch.stack([q[i, j, h] @ k[m, n, h] * width ** -.5
                                  + table[(i - m + size - 1) * (2 * size - 1) + j - n + size - 1, h]
                                  for m, n in others])
            mixed = sum(weight * v[m, n, h] for weight, (m, n) in zip(logits.softmax(0), others, strict=True))
            y[i, j, h * width:(h + 1) * width] = mixed
    x = x + block.attn.proj(y)
    hidden = block.mlp.fc1(block.norm2(x))
    return x + block.mlp.fc2(hidden * .5 * (1 + torch.erf(hidden / 2 ** .5)))


@torch.no_grad()
def test_a_window_that_is_the_whole_map_is_not_shifted():
    stage, x = SwinStage(4, 4, (2,), (2,), 4, 6, .8).double().eval(), drawn(1, 4, 4, 4)
    assert not [name for name in stage.state_dict() if name.endswith('attn_mask')]
    y = x[0].permute(1, 2, 0).reshape(16, 4)
    for block in stage.layers[0].blocks:
        torch.nn.init.normal_(block.attn.relative_position_bias_table)
        bias = torch.tensor([[[block.attn.relative_position_bias_table[(i // 4 - j // 4 + 3) * 7 + i % 4 - j % 4 + 3, h]
                               for j in range(16)] for i in range(16)] for h in range(2)])
        q, k, v = block.attn.qkv(block.norm1(y)).view(16, 3, 2, 2).permute(1, 2, 0, 3)  # every token sees every other
        mixed = (q @ k.mT / 2 ** .5 + bias).softmax(2) @ v
        y = y + block.attn.proj(mixed.transpose(0, 1).reshape(16, 4))
        y = y + block.mlp(block.norm2(y))
    y = stage.layers[0].conv(y.T.view(1, 4, 4, 4)).relu()
    assert_close(stage(x), .8 * y + x, rtol=0, atol=1e-12)


@torch.no_grad()
def test_swin_stage_against_loops():
    stage, x = SwinStage(8, 4, (2,), (2,), 4, 6, .8).double().eval(), drawn(1, 4, 8, 8)
    y = x[0].permute(1, 2, 0)
    for block in stage.layers[0].blocks:
        torch.nn.init.normal_(block.attn.relative_position_bias_table)
        y = plain_block(block, y)
    y = stage.layers[0].conv(y.permute(2, 0, 1)[None]).relu()
    assert_close(stage(x), .8 * y + x, rtol=0, atol=1e-12)


def test_a_stage_must_be_cut_into_whole_windows():
    with pytest.raises(ValueError, match='side 10 is not a multiple of window_size 4'):
        SwinStage(10, 4)


def test_position_tables_keep_their_class_token_and_a_constant():
    table = torch.cat([drawn(1, 1, 3), drawn(1, 1, 3, seed=1).expand(1, 16, 3)], 1)
    new = resample_position_embedding(table, 6)
    assert new.shape == (1, 37, 3)
    assert torch.equal(new[:, :1], table[:, :1])
    assert_close(new[:, 1:], table[:, 1:2].expand(1, 36, 3), rtol=0, atol=1e-6)
    assert resample_position_embedding(table, 4) is table
    with pytest.raises(UserError, match='15 patches is not square'):
        resample_position_embedding(table[:, :16], 6)


# The whole

def test_the_score_is_the_mean_of_the_patches_by_weight(tiny):
    x = torch.rand(3, 3, 64, 64) * 2 - 1
    with torch.no_grad():
        (score,), (f, w) = tiny(x), tiny.patches(x)
        alone = tiny(x[1:2])[0]
    assert score.shape == (3, 1)
    assert f.shape == w.shape == (3, 4, 4)
    assert (f >= 0).all()
    assert ((w > 0) & (w < 1)).all()
    for n in range(3):
        assert float(score[n]) == pytest.approx(np.average(f[n].numpy(), weights=w[n].numpy()), rel=1e-5)
    assert_close(alone, score[1:2])


def test_what_the_score_does_not_depend_on_is_not_computed(tiny):
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        before = tiny(x)[0]
        unused = [name for name, p in tiny.named_parameters() if not p.requires_grad]
        kept = {name: p.clone() for name, p in tiny.named_parameters() if name in unused}
        for name in unused:
            tiny.get_parameter(name).fill_(float('nan'))
        after = tiny(x)[0]
        for name, value in kept.items():
            tiny.get_parameter(name).copy_(value)
    assert torch.equal(before, after)
    tiny(x)[0].sum().backward()
    assert [name for name, p in tiny.named_parameters() if p.grad is None] == unused
    tiny.zero_grad()


def test_activations_computed_again_change_no_number():
    x, gradients = torch.rand(2, 3, 64, 64), []
    for again in (False, True):
        torch.manual_seed(0)
        model = create_model('maniqa_tiny', img_size=64, checkpoint_activations=again).train()
        model(x)[0].sum().backward()
        gradients.append([p.grad for p in model.parameters() if p.grad is not None])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_sizes_that_do_not_fit(tiny):
    with pytest.raises(UserError, match=r'images of 96x128 \(h x w\) for a network of 64x64: .*--img_size'):
        tiny(torch.zeros(1, 3, 96, 128))
    for name, size, multiple in (('maniqa_384', 100, 64), ('maniqa_224', 240, 32)):
        with pytest.raises(UserError, match=f'--img_size {size}: expected a multiple of {multiple}'):
            create_model(name, img_size=size)


def test_half_precision_sums_in_float32(tiny):
    x = torch.rand(1, 3, 64, 64) * 2 - 1
    with torch.no_grad(), torch.autocast('cpu', torch.bfloat16):
        (score,) = tiny(x)
    assert score.dtype == torch.float32
    assert_close(score, tiny(x)[0], rtol=.05, atol=.05)


def test_weights_of_the_vit_from_a_file_at_another_size(tiny, tmp_path):
    for name, save in (('vit.pth', torch.save), ('vit.safetensors', save_safely)):
        save(tiny.vit.state_dict(), tmp_path / name)
        model = create_model('maniqa_tiny', img_size=128, weights=tmp_path / name)
        assert torch.equal(model.vit.blocks[3].attn.qkv.weight, tiny.vit.blocks[3].attn.qkv.weight)
        assert torch.equal(model.vit.pos_embed, resample_position_embedding(tiny.vit.pos_embed, 8))
    for content, reason in (({}, r"not a state dict of maniqa's: it lacks .*cls_token"),
                            ({'pos_embed': torch.zeros(1, 17, 192)}, 'not a state dict')):
        torch.save(content, tmp_path / 'other.pth')
        with pytest.raises(UserError, match=f'other.pth: .*{reason}'):
            load_vit(tiny.vit, "maniqa's", tmp_path / 'other.pth')
    with pytest.raises(UserError, match=r'gone.pth: no such file'):
        create_model('maniqa_tiny', weights=tmp_path / 'gone.pth')


def save_safely(state, path):
    from safetensors.torch import save_file
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, path)


# Views and pretrained weights

def test_twenty_crops():
    image = np.random.RandomState(0).randint(0, 256, (230, 300, 3), np.uint8)
    crops = variants(image, 'crops20')
    assert [crop.shape for crop in crops] == [(224, 224, 3)] * 20
    for crop in crops:
        top, left = place(image, crop)
        assert np.array_equal(image[top:top + 224, left:left + 224], crop)
    assert len({place(image, crop) for crop in crops}) > 10
    assert all(np.array_equal(a, b) for a, b in zip(crops, variants(image, 'crops20'), strict=True))
    with pytest.raises(UserError, match='300x200 pixels have no crops of 224x224'):
        variants(image[:200], 'crops20')


def place(image, crop):
    """Where a crop was cut out."""
    found = [(top, left) for top in range(7) for left in range(77) if (image[top, left:left + 224] == crop[0]).all()]
    assert len(found) == 1
    return found[0]


def test_a_checkpoint_of_lightning(tiny, tmp_path):
    state = {f'net.{name}': tensor for name, tensor in tiny.state_dict().items()}
    torch.save({'state_dict': state, 'epoch': 1}, tmp_path / 'last.ckpt')
    model = create_model('maniqa_tiny', img_size=64)
    load_pretrained(model, tmp_path / 'last.ckpt')
    assert all(torch.equal(tensor, tiny.state_dict()[name]) for name, tensor in model.state_dict().items())
    with pytest.raises(UserError, match=r'last.ckpt: does not fit the network: .*has other shapes, .*vit.pos_embed'):
        load_pretrained(create_model('maniqa_tiny'), tmp_path / 'last.ckpt')


# Recorded numbers

@pytest.fixture(scope='module')
def numbers(shared):
    return recorded(shared, 'maniqa')


@pytest.fixture(scope='module')
def systems(shared):
    return filling(shared)


def filled(systems, case, **options):
    model = create_model(case['name'], **options).double().eval()
    return systems.fill(model, case['salt'], case['gain'], case['law'], **case['fixed'])


def pictures(systems, case, side):
    return (images(systems, range(case['seed'], case['seed'] + case['n']), side, side) - .5) / .5


def direction(systems, name, tensor):
    """The norm of a tensor, and its sum along the direction of that name."""
    values = tensor.detach().numpy()
    return [np.linalg.norm(values), (values * systems.probe(name, values.shape)).sum()]


def test_recorded_blocks(numbers, systems):
    for i, case in enumerate(cases(numbers, 'tab/cases')):
        block = systems.fill(TABlock(case['dim']).double().eval(), case['salt'], case['gain'])
        x = drawn(*case['x'], seed=case['x_seed']).requires_grad_()
        y = block(x)
        y.square().sum().backward()
        assert_close(y, torch.tensor(numbers[f'tab/{i}/y']), rtol=0, atol=1e-12)
        assert_close(x.grad, torch.tensor(numbers[f'tab/{i}/grad_x']), rtol=0, atol=1e-11)
    for i, case in enumerate(cases(numbers, 'swin/cases')):
        stage = SwinStage(case['side'], case['dim'], case['depths'], case['heads'], case['window'], case['mlp'],
                          case['scale']).double().eval()
        assert {name: list(value.shape) for name, value in stage.state_dict().items()} == case['shapes']
        systems.fill(stage, case['salt'], case['gain'])
        x = drawn(2, case['dim'], case['side'], case['side'], seed=case['x_seed']).requires_grad_()
        y = stage(x)
        y.sum().backward()
        assert_close(y[:1, :8], torch.tensor(numbers[f'swin/{i}/y']), rtol=0, atol=1e-12)
        norm, along = direction(systems, 'swin', y)
        np.testing.assert_allclose([y.sum().item(), norm ** 2, along], numbers[f'swin/{i}/y_moments'], rtol=1e-10)
        np.testing.assert_allclose(direction(systems, 'swin', x.grad), numbers[f'swin/{i}/grad_x'], rtol=1e-10)


def test_recorded_position_tables(numbers):
    for side in (28, 40):
        table = resample_position_embedding(torch.tensor(numbers['pos/table']), side)
        assert_close(table.float(), torch.tensor(numbers[f'pos/{side}']), rtol=0, atol=1e-6)


def test_recorded_names(shared):
    keys = json.loads((shared / 'golden' / 'systems' / 'maniqa_keys.json').read_text())
    for name, expected in keys.items():
        with torch.device('meta'):
            state = create_model(name).state_dict()
        assert [[key, list(value.shape)] for key, value in state.items()] == [list(pair) for pair in expected.items()]


def test_recorded_scores_and_gradients_at_128(numbers, systems):
    case = cases(numbers, 'small/case')
    model = filled(systems, case, img_size=case['img_size'])
    (score,) = model(pictures(systems, case, case['img_size']))
    np.testing.assert_allclose(score[:, 0].detach(), numbers['small/eval'], rtol=0, atol=1e-6)
    score.sum().backward()
    found = dict(model.named_parameters())
    assert [name for name, p in found.items() if p.grad is None] == case['without_gradient']
    gradients = [direction(systems, name, found[name].grad) for name in case['grad_names']]
    np.testing.assert_allclose(gradients, numbers['small/grad'], rtol=1e-5, atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize('name', ['maniqa_384', 'maniqa_224'])
def test_recorded_scores_of_whole_networks(numbers, systems, name):
    case = cases(numbers, f'{name}/case')
    model, x = filled(systems, case), pictures(systems, case, int(name[-3:]))
    with torch.no_grad():
        np.testing.assert_allclose(model(x)[0][:, 0], numbers[f'{name}/eval'], rtol=0, atol=1e-6)
        np.testing.assert_allclose(model.float()(x.float())[0][:, 0], numbers[f'{name}/eval32'], rtol=0, atol=1e-3)


@pytest.mark.slow
def test_recorded_training(numbers, systems):
    case = cases(numbers, 'train/case')
    model, x = filled(systems, case, img_size=case['img_size']), pictures(systems, case, case['img_size'])
    y = torch.tensor(case['target'], dtype=torch.float64)[:, None]
    optimizer = torch.optim.Adam(model.parameters(), weight_decay=case['weight_decay'])
    losses = []
    for lr in case['lrs']:
        optimizer.param_groups[0]['lr'] = lr
        loss = (model(x)[0] - y).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    np.testing.assert_allclose(losses, numbers['train/loss'], rtol=1e-3)
