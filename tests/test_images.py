"""Image files: any bytes are an image or an error in one line; which formats are read; what samples mean."""
import importlib.util
import io
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, features
from scored import photo

import test_demo
from data import check
from iqa_data.cache import in_memory
from iqa_data.images import FORMATS, HEIF_HINT, ImageError, opened, to_rgb
from iqa_data.loaders import check_images
from iqa_data.transforms import Preprocess
from iqa_runtime.errors import UserError, one_line
from iqa_scoring.stream import Reader

SMALL = Image.fromarray(photo(0, (24, 32)))
HEIC = b'\0\0\0\x18ftypheic\0\0\0\0mif1heic' + bytes(40)


def written(image: Image.Image, form: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def samples() -> dict[str, bytes]:
    """A small file of each format that Pillow writes, and of TIFF's and PNG's kinds."""
    Image.init()
    files = {}
    for form in sorted({*Image.SAVE, *Image.SAVE_ALL} - {'BUFR', 'GRIB', 'HDF5', 'WMF'}):  # stubs, which write nothing
        for mode in ('RGB', 'L', '1', 'P'):
            try:
                files[form] = written(SMALL.convert(mode), form)
                break
            except (OSError, ValueError, KeyError):
                continue
    for kind in ('tiff_lzw', 'jpeg', 'tiff_deflate', 'packbits'):
        files[f'TIFF {kind}'] = written(SMALL, 'TIFF', compression=kind)
    for mode in ('I;16', 'RGBA', 'LA', '1'):
        files[f'PNG {mode}'] = written(SMALL.convert('L').convert(mode), 'PNG')
    for mode in ('F', 'I', 'CMYK', 'P', '1'):
        files[f'TIFF {mode}'] = written(SMALL.convert('L' if mode in 'FI' else 'RGB').convert(mode), 'TIFF')
    files['GIF animated'] = written(SMALL, 'GIF', save_all=True, append_images=[SMALL.rotate(90)])
    files['HEIF'] = HEIC
    return files


SAMPLES = samples()


@st.composite
def mutated(draw) -> tuple[str, bytes]:
    """A file of SAMPLES with some bytes changed, inserted or cut off."""
    name = draw(st.sampled_from(sorted(SAMPLES)))
    data = bytearray(SAMPLES[name])
    most = draw(st.sampled_from([64, len(data)]))  # as often in the header as in all the rest
    for _ in range(draw(st.integers(0, 6))):
        place = draw(st.integers(0, max(0, min(most, len(data)) - 1)))
        change = draw(st.sampled_from(['flip', 'set', 'insert', 'cut']))
        if change == 'flip' and data:
            data[place] ^= 1 << draw(st.integers(0, 7))
        elif change == 'set' and data:
            data[place] = draw(st.sampled_from([0, 1, 127, 128, 254, 255]))
        elif change == 'insert':
            data[place:place] = draw(st.binary(max_size=4))
        elif change == 'cut':
            del data[draw(st.integers(place, len(data))):]
    return name, bytes(data)


@pytest.mark.filterwarnings('ignore')
@settings(max_examples=250, deadline=None, suppress_health_check=list(HealthCheck))
@given(mutated())
def test_any_bytes_are_an_image_or_an_error_in_one_line(tmp_path_factory, case):
    path = tmp_path_factory.getbasetemp() / 'mutated'
    path.write_bytes(case[1])
    sample = Reader(Preprocess(resize=(48, 64)), max_pixels=1 << 22)(0, str(path))
    if sample.error:
        assert sample.pixels is None
        assert sample.error == one_line(sample.error)
    else:
        assert sample.pixels.shape == (3, 48, 64)
    seen = check.look(path)
    assert seen.error == one_line(seen.error)
    for prepare in (check_images, in_memory):
        try:
            prepare([path], Preprocess())
        except UserError as error:
            assert str(error).startswith(f'1 of 1 images cannot be read: {path} (')  # noqa: PT017


@pytest.mark.parametrize('form', FORMATS)
def test_every_format_is_read(form, tmp_path):
    if form not in SAMPLES:
        pytest.skip(f'this Pillow writes no {form}')
    (tmp_path / 'x').write_bytes(SAMPLES[form])
    assert Preprocess()(tmp_path / 'x').size == (32, 24)


@pytest.mark.parametrize('form', ['EPS', 'PDF', 'ICNS', 'SPIDER', 'DDS', 'BLP', 'IM'])
def test_formats_that_are_none_of_photographs_are_not_opened(form, tmp_path, monkeypatch):
    monkeypatch.setattr(subprocess, 'Popen', None)  # EPS named .jpg: Pillow alone would start Ghostscript
    (tmp_path / 'x.jpg').write_bytes(SAMPLES[form])
    assert Reader(Preprocess())(0, str(tmp_path / 'x.jpg')).error == 'cannot identify image file'


@pytest.mark.parametrize('error', [RuntimeError('a'), IndexError(), NotImplementedError('b\nc'), EOFError(),
                                   MemoryError(), subprocess.CalledProcessError(1, 'gs'), ZeroDivisionError()])
def test_whatever_a_decoder_raises(tmp_path, monkeypatch, error):
    SMALL.save(tmp_path / 'x.png')

    def load(image):
        raise error
    monkeypatch.setattr('PIL.PngImagePlugin.PngImageFile.load', load)
    reason = Reader(Preprocess())(0, str(tmp_path / 'x.png')).error
    assert reason
    assert '\n' not in reason
    assert 'memory' in reason or not isinstance(error, MemoryError)
    assert check.look(tmp_path / 'x.png').error == reason
    with pytest.raises(UserError, match='1 of 1 images cannot be read'):
        check_images([tmp_path / 'x.png'], Preprocess())


def test_what_is_no_decoders_error_passes(tmp_path):
    SMALL.save(tmp_path / 'x.png')

    def use(error: type[BaseException]):
        with opened(tmp_path / 'x.png'):
            raise error
    for error in (KeyboardInterrupt, SystemExit):
        with pytest.raises(error):
            use(error)


def test_files_that_may_never_end(tmp_path):
    os.mkfifo(tmp_path / 'pipe.png')
    for path in (tmp_path / 'pipe.png', '/dev/zero', tmp_path):
        assert Reader(Preprocess())(0, str(path)).error == 'not a file'
    with pytest.raises(ImageError, match='gone.png: no such file'):
        Preprocess()(tmp_path / 'gone.png')


def test_a_broken_image_costs_no_other(scored, capsys):
    Path('mixed').mkdir()
    for i in range(6):
        Image.fromarray(photo(i)).save(f'mixed/{i}.png')
    if features.check('avif'):
        whole = written(Image.fromarray(photo(9)), 'AVIF')
        Path('mixed/broken.avif').write_bytes(whole[:len(whole) // 2])
    Path('mixed/phone.heic').write_bytes(HEIC)
    words = ['--img', 'mixed', *scored, '--csv', 'out.csv', '--resume']
    for count in (6, 0):
        with pytest.raises(SystemExit) as stop:
            test_demo.main(words)
        assert stop.value.code == 1
        out, err = capsys.readouterr()
        assert f'{count} images scored' in out
        assert f'{1 + features.check("avif")} could not be' in out
        assert 'mixed/phone.heic: ' in err


@pytest.mark.skipif(bool(importlib.util.find_spec('pillow_heif')), reason='pillow-heif is installed')
def test_heif_names_the_package_that_reads_it(tmp_path):
    (tmp_path / 'x.jpg').write_bytes(HEIC)
    with pytest.raises(ImageError) as error:
        Preprocess()(tmp_path / 'x.jpg')
    assert str(error.value) == f'{tmp_path}/x.jpg: {HEIF_HINT}'
    assert 'pip install pillow-heif' in HEIF_HINT


def test_heif_is_read_if_the_package_is_there(tmp_path):
    heif = pytest.importorskip('pillow_heif')
    smooth = SMALL.resize((4, 3)).resize((64, 48), Image.Resampling.BICUBIC)
    heif.from_pillow(smooth).save(tmp_path / 'x.heic', quality=95)
    ours = np.asarray(Preprocess()(tmp_path / 'x.heic'), int)
    assert np.abs(ours - np.asarray(smooth, int)).mean() < 3


# What samples mean: an independent float64 reading of each rule

RAMP = np.linspace(0, 1, 600).reshape(20, 30)


def read(array: np.ndarray, tmp_path: Path, suffix: str = 'tif') -> np.ndarray:
    Image.fromarray(array).save(tmp_path / f'x.{suffix}')
    return np.asarray(Preprocess()(tmp_path / f'x.{suffix}'))


@pytest.mark.parametrize(('array', 'suffix'), [
    ((RAMP * 65535).astype(np.uint16), 'tif'), ((RAMP * 65535).astype(np.uint16), 'png'),
    ((RAMP * 65535).astype(np.uint16), 'pgm'), ((RAMP * 65535).astype(np.int32), 'tif'),
    (RAMP.astype(np.float32), 'tif'), ((RAMP * .3).astype(np.float32), 'tif')])
def test_deep_grey_is_scaled(array, suffix, tmp_path):
    white = 1 if array.dtype == np.float32 else 65535
    expected = np.rint(array.astype(np.float64) / white * 255)
    found = read(array, tmp_path, suffix)
    assert found.shape == (20, 30, 3)
    assert np.abs(found - expected[..., None]).max() <= (0 if white == 65535 else 1)


def test_black_is_black(tmp_path):
    for array in (np.zeros((4, 5), np.uint16), np.zeros((4, 5), np.float32), np.zeros((4, 5), np.int32)):
        assert not read(array, tmp_path).any()


@pytest.mark.parametrize(('array', 'message'), [
    ((RAMP * 65535).astype(np.float32), r'its samples are 0 to 65535, .*expected 0 to 1, or 8 bits'),
    ((RAMP * 255).astype(np.float32), 'its samples are 0 to 255'),
    ((RAMP - .1).astype(np.float32), 'its samples are -0.1 to 0.9'),
    (np.full((4, 5), np.nan, np.float32), 'its samples are nan to nan'),
    (np.full((4, 5), np.inf, np.float32), 'its samples are inf to inf'),
    ((RAMP * 2 ** 31).clip(0, 2 ** 31 - 1).astype(np.int32), 'its samples are 0 to 2.147.*expected 0 to 65535'),
    ((RAMP * 100 - 9).astype(np.int32), 'its samples are -9 to 91'),
    ((RAMP * 4095).astype(np.uint16), 'its 16-bit samples are all below 4096'),
    ((RAMP * 255).astype(np.int32), 'its 16-bit samples are all below 4096')])
def test_samples_of_no_known_scale_are_refused(array, message, tmp_path):
    with pytest.raises(ImageError, match=message):
        read(array, tmp_path)


def tiff(samples: np.ndarray, bits: int) -> bytes:
    """A TIFF by hand: grey or RGB of 12 or 16 bits, which Pillow does not write."""
    h, w = samples.shape[:2]
    channels = samples.shape[2] if samples.ndim == 3 else 1
    if bits == 12:
        pairs = samples.astype(np.uint32).reshape(h, -1, 2)
        data = np.stack([pairs[..., 0] >> 4, (pairs[..., 0] & 15) << 4 | pairs[..., 1] >> 8, pairs[..., 1] & 255], -1)
        data = data.astype(np.uint8).tobytes()
    else:
        data = samples.astype('<u2').tobytes()
    tags = [(256, 3, 1, w), (257, 3, 1, h), (258, 3, 1, bits), (259, 3, 1, 1),
            (262, 3, 1, 2 if channels == 3 else 1), (273, 4, 1, 0), (277, 3, 1, channels), (278, 3, 1, h),
            (279, 4, 1, len(data))]
    start = 8 + 2 + 12 * len(tags) + 4
    depth = b'' if channels == 1 else np.array([bits] * 3, '<u2').tobytes()
    if depth:
        tags[2] = (258, 3, 3, start)
    tags[5] = (273, 4, 1, start + len(depth))
    entries = b''.join(np.array([tag, kind], '<u2').tobytes() + np.array([n, value], '<u4').tobytes()
                       for tag, kind, n, value in tags)
    return b'II*\0\x08\0\0\0' + np.uint16(len(tags)).tobytes() + entries + bytes(4) + depth + data


def test_12_bits_that_say_so_and_that_do_not(tmp_path):
    ramp = (RAMP * 4095).astype(np.uint16)
    (tmp_path / 'x.tif').write_bytes(tiff(ramp, 12))
    found = np.asarray(Preprocess()(tmp_path / 'x.tif'))[..., 0]
    assert np.abs(found - ramp / 4095. * 255).max() <= .5
    colours = np.stack([ramp, ramp // 2, ramp // 3], -1)
    (tmp_path / 'x.tif').write_bytes(tiff(colours, 16))
    with pytest.raises(ImageError, match='its 16-bit samples are all below 4096'):
        Preprocess()(tmp_path / 'x.tif')
    (tmp_path / 'x.tif').write_bytes(tiff(colours * 16, 16))
    found = np.asarray(Preprocess()(tmp_path / 'x.tif')).astype(float)
    assert np.abs(found - colours * 16 / 257.).max() <= 1


@pytest.mark.parametrize('mode', ['1', 'L', 'P', 'RGB', 'RGBA', 'CMYK', 'YCbCr', 'LAB', 'HSV', 'LA', 'PA', 'La', 'RGBa',
                                  'RGBX'])
def test_a_picture_stays_a_picture_in_every_mode(mode):
    image = SMALL.convert('RGB')
    for step in {'PA': ('P', 'PA'), 'La': ('LA', 'La'), 'RGBa': ('RGBA', 'RGBa')}.get(mode, (mode,)):
        if step == 'LAB':
            from PIL import ImageCms
            profile = ImageCms.createProfile('sRGB'), ImageCms.createProfile('LAB')
            image = ImageCms.profileToProfile(image, *profile, outputMode='LAB')
        else:
            image = image.convert(step)
    grey = np.asarray(SMALL.convert('L'), float)
    ours = np.asarray(to_rgb(image).convert('L'), float)
    assert np.corrcoef(grey.ravel(), ours.ravel())[0, 1] > (.5 if mode == '1' else .9)
    assert abs(ours.mean() - grey.mean()) < 12
