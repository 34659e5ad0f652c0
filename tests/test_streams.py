"""Many images: found, read, batched in bounded memory, and what is wrong with some of them."""
import codecs
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scored import photo, random_checkpoint, save_photos

import test_demo
from iqa_data.find import find_dataset
from iqa_data.transforms import Preprocess
from iqa_runtime.errors import UserError
from iqa_runtime.names import path_text
from iqa_runtime.process import pillow_without_limit
from iqa_scoring.inputs import find_images
from iqa_scoring.references import with_references
from iqa_scoring.stream import LAG, Reader, Sample, batches, decode, score_files
from IQAmodel import load

READ = Reader(Preprocess(resize=(48, 64)))


def test_finding_images(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ('a/2.png', 'a/1.JPG', 'a/.hidden.png', 'a/text.txt', 'a/b/3.png', 'a/.git/4.png', '[1].png',
                 'empty/x'):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()
    assert find_images(['a']) == (['a/1.JPG', 'a/2.png'], 0)
    assert find_images(['a/'], recursive=True) == (['a/1.JPG', 'a/2.png', 'a/b/3.png'], 0)
    assert find_images(['a/*.png', './a/2.png', '[1].png', 'gone.png']) == (['a/2.png', '[1].png', 'gone.png'], 1)
    assert find_images(['a/**/3.*', 'a/text.txt']) == (['a/b/3.png', 'a/text.txt'], 0)
    lines = [codecs.BOM_UTF8 + b'a/2.png\r\n', b'\n', b'caf\xe9.png']
    assert find_images(['-'], stdin=lines) == (['a/2.png', 'caf\udce9.png'], 0)
    for words, message in ((['a/*.gif'], r'a/\*.gif: no file matches'), (['empty'], 'empty: the folder has no images'),
                           (['-'], 'no path on stdin')):
        with pytest.raises(UserError, match=message):
            find_images(words)


def test_dots_after_a_link_lead_out_of_its_target(tmp_path, monkeypatch):
    """As the system reads a path: link/../a.png is not a.png."""
    for folder in ('here', 'far/deep'):
        (tmp_path / folder).mkdir(parents=True)
    for folder in ('here', 'far'):
        for name in ('a.png', 'set.csv'):
            (tmp_path / folder / name).write_text(folder)
    monkeypatch.chdir(tmp_path / 'here')
    os.symlink('../far/deep', 'link')
    paths, repeated = find_images(['link/../a.png', './/a.png', 'a.png'])
    assert [Path(path).read_text() for path in paths] == ['far', 'here']
    assert repeated == 1
    assert with_references(['a.png'], './link/../a.png', 2) == [('link/../a.png', 'a.png')]
    assert Path(find_dataset('link/../set.csv')).read_text() == 'far'


def test_names_are_valid_text_on_one_line():
    assert path_text('a b/"c\'<script>.png') == 'a b/"c\'<script>.png'
    assert path_text(os.fsdecode(b'caf\xe9\n.png')) == r'caf\xe9\n.png'
    assert path_text('日本.png') == '日本.png'


def test_decoding_keeps_order_and_a_bounded_distance(tmp_path):
    asked = []

    def read(index, path):
        asked.append(index)
        return Sample(index, path)
    stream = decode(map(str, range(100)), read, 3, 5)
    for i in range(10):
        assert next(stream).index == i
    assert len(asked) <= 16
    stream.close()
    assert len(asked) <= 16


def samples(sizes):
    for i, side in enumerate(sizes):
        yield Sample(i, str(i), torch.zeros(3, side, side, dtype=torch.uint8) if side else None)


def test_batches():
    got = [[sample.index for sample in batch] for batch in batches(samples([8, 9, 8, 0, 9, 8, 8]), 2)]
    assert got == [[0, 2], [3], [1, 4], [5, 6]]
    rare = list(batches(samples([5] + [8] * 1000), 2))
    first = next(i for i, batch in enumerate(rare) if batch[0].index == 0)
    assert first <= LAG
    assert sorted(sample.index for batch in rare for sample in batch) == list(range(1001))
    sizes = np.random.RandomState(0).randint(1, 60, 300)
    held, most = 0, 0

    def counted():
        nonlocal held, most
        for sample in samples(sizes):
            held += sample.pixels.nbytes
            most = max(most, held)
            yield sample
    for batch in batches(counted(), 8, waiting=20_000):
        assert len({sample.pixels.shape for sample in batch}) == 1
        held -= sum(sample.pixels.nbytes for sample in batch)
    assert most <= 20_000 + 3 * 60 * 60
    assert held == 0


@pytest.fixture(scope='module')
def scorer():
    return load(random_checkpoint(resize=None))


def test_mixed_sizes_come_in_order_with_the_scores_of_one_by_one(scorer, tmp_path, one_thread):
    sizes = [(48, 64), (64, 48), (33, 70)]
    images = [photo(i, sizes[i * i % 3]) for i in range(17)]
    paths = [str(tmp_path / f'{i}.png') for i in range(17)]
    for image, path in zip(images, paths, strict=True):
        Image.fromarray(image).save(path)
    (tmp_path / '3.png').write_text('no image')
    (tmp_path / '8.png').unlink()
    done = list(score_files(scorer, paths, Reader(Preprocess()), 4, 2))
    assert [sample.index for sample in done] == list(range(17))
    assert 'cannot identify' in done[3].error
    assert done[8].error == 'no such file'
    for i in set(range(17)) - {3, 8}:
        assert float(scorer.mapping(done[i].heads[0])) == pytest.approx(scorer.score(images[i]), abs=1e-3)
        assert done[i].pixels is None


def test_stopping_keeps_what_is_scored(scorer, tmp_path):
    paths = save_photos(tmp_path, 12)
    asked = []
    done = list(score_files(scorer, paths, Reader(Preprocess()), 2, 1, stop=lambda: asked.append(0) or len(asked) == 2))
    assert [sample.index for sample in done] == [0, 1, 2, 3]


def test_a_pyramid_that_does_not_fit_one_image(tmp_path, one_thread):
    scorer = load(random_checkpoint(resize=None, P7=2))
    Image.fromarray(photo(0, (1, 1))).save(tmp_path / 'dot.png')
    Image.fromarray(photo(0)).save(tmp_path / 'photo.png')
    done = list(score_files(scorer, [str(tmp_path / 'dot.png'), str(tmp_path / 'photo.png')], Reader(Preprocess())))
    assert '1x1 pixels: a feature map of 1x1 cannot be pooled into 2x2 cells' in done[0].error
    assert np.isfinite(done[1].heads).all()


def test_one_pixel(scored, tmp_path):
    Image.fromarray(photo(0, (1, 1))).save('dot.png')
    assert np.isfinite(test_demo.main(['--img', 'dot.png', *scored]))


def test_an_animation_is_scored_by_its_first_frame(scored, capsys):
    frames = [Image.fromarray(photo(i)) for i in range(3)]
    frames[0].save('moving.gif', save_all=True, append_images=frames[1:])
    frames[0].save('still.gif')
    assert test_demo.main(['--img', 'moving.gif', *scored]) == test_demo.main(['--img', 'still.gif', *scored])
    assert capsys.readouterr().out.count('Note: the first of several frames') == 1


def test_a_decompression_bomb(scored, fails, capsys):
    Image.new('1', (20_000, 20_000)).save('bomb.png')
    error = fails(test_demo.main, '--img', 'bomb.png', *scored)
    assert '--img bomb.png: 20000x20000 pixels are more than 178956970' in error
    assert '--max_pixels 400000000' in error
    Image.new('RGB', (200, 100)).save('small.png')
    assert '--max_pixels 20000' in fails(test_demo.main, '--img', 'small.png', '--max_pixels', '19999', *scored)
    assert np.isfinite(test_demo.main(['--img', 'small.png', '--max_pixels', '20000', *scored]))


def test_pillows_own_limit_comes_back():
    limit = Image.MAX_IMAGE_PIXELS
    with pillow_without_limit():
        assert Image.MAX_IMAGE_PIXELS is None
    assert limit == Image.MAX_IMAGE_PIXELS


def test_thumbnails_have_the_proportions_of_the_file(tmp_path):
    image = Image.fromarray(photo(0, (30, 90)))
    exif = Image.Exif()
    exif[0x112] = 6  # turned by 90 degrees
    image.save(tmp_path / 'turned.jpg', exif=exif)
    sample = Reader(Preprocess(resize=(48, 64)), thumbnail=60)(0, str(tmp_path / 'turned.jpg'))
    (tmp_path / 'thumbnail.jpg').write_bytes(sample.thumbnail)
    assert Image.open(tmp_path / 'thumbnail.jpg').size == (20, 60)
    assert sample.pixels.shape == (3, 48, 64)
