"""Videos: their frames are those that were written, turned and coloured as players do; what is broken is named."""
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import test_demo
from iqa_data.transforms import Preprocess
from iqa_scoring.shards import How, images_in
from iqa_scoring.stream import Reader

av = pytest.importorskip('av')

W, H, RATE = 96, 64, 10
READ = Reader(Preprocess())


def picture(i: int, size: tuple[int, int] = (W, H)) -> np.ndarray:
    """Grey 40, 42, ...; red in the upper left corner."""
    pixels = np.full((size[1], size[0], 3), 40 + 2 * i, np.uint8)
    pixels[:16, :32] = [200, 30, 60]
    return pixels


def clip(path: str = 'clip.mp4', n: int = 40, size: tuple[int, int] = (W, H), sound: bool = False,
         matrix: int = 5) -> bytes:
    """Write a video of n pictures and return its bytes, the index of an MP4 at its start."""
    with av.open(path, 'w', options={'movflags': '+faststart'} if path.endswith('.mp4') else {}) as video:
        silence = add_sound(video) if sound else []
        stream = video.add_stream('mpeg4', rate=RATE)
        (stream.width, stream.height), stream.pix_fmt, stream.bit_rate = size, 'yuv420p', 4_000_000
        video.start_encoding()
        for packets in silence:
            video.mux(packets)
        for i in range(n):
            frame = av.VideoFrame.from_ndarray(picture(i, size), format='rgb24')
            video.mux(stream.encode(frame.reformat(format='yuv420p', dst_colorspace=matrix)))
        video.mux(stream.encode() if n else [])
    return Path(path).read_bytes()


def add_sound(video) -> Iterator[list]:
    """Add a stream of sound to a video; return the packets of a second of silence."""
    stream = video.add_stream('aac', rate=16000, layout='mono')
    frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format='fltp', layout='mono')
    frame.sample_rate = 16000
    return (stream.encode(one) for one in (*[frame] * 16, None))


def read(path: str, **how) -> tuple[list[np.ndarray], list[str], str]:
    """The pixels of the frames, their names, and what is wrong with the video."""
    *images, end = images_in(path, How(**how))
    samples = [READ(i, image) for i, image in enumerate(images)]
    assert not any(sample.error for sample in samples)
    return [sample.pixels.permute(1, 2, 0).numpy() for sample in samples], [image.key for image in images], end.error


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def close(found: np.ndarray, wanted: np.ndarray) -> bool:
    """Whether pixels agree in the mean, as far as compression keeps them."""
    return found.shape == wanted.shape and np.abs(found.astype(int) - wanted).mean() < 4


# Frames

@pytest.mark.parametrize(('path', 'every'), [('clip.mp4', 1), ('clip.MOV', 7), ('clip.mkv', 16), ('clip.avi', 40)])
def test_each_nth_frame_is_the_one_that_was_written(path, every):
    clip(path)
    pixels, names, error = read(path, every=every)
    assert error == ''
    assert names == [f'{i:06d}@{i / RATE:.3f}s' for i in range(0, 40, every)]
    assert all(close(found, picture(i)) for i, found in zip(range(0, 40, every), pixels, strict=True))


def test_sound_beside_the_video_is_passed_over():
    clip(sound=True)
    pixels, names, error = read('clip.mp4')
    assert (len(names), error) == (40, '')
    assert close(pixels[0], picture(0))


@pytest.mark.parametrize('turns', [0, 1, 2, 3])
def test_a_video_of_a_turned_phone_is_turned(turns):
    """The matrix of the track header (ISO 14496-12) turns by quarters, clockwise."""
    content = bytearray(clip(n=3))
    a, b = [(1, 0), (0, 1), (-1, 0), (0, -1)][turns]
    start = content.index(b'tkhd') + 44
    content[start:start + 36] = struct.pack('>9i', a << 16, b << 16, 0, -b << 16, a << 16, 0, 0, 0, 1 << 30)
    Path('turned.mp4').write_bytes(content)
    assert close(read('turned.mp4')[0][0], np.rot90(picture(0), -turns))


@pytest.mark.parametrize(('size', 'matrix'), [((W, H), 5), ((1280, 720), 1)])
def test_colours_that_are_not_noted_are_those_of_the_size(size, matrix):
    """BT.601 up to 576 rows, BT.709 above: the other one shifts this red by ten."""
    clip(n=1, size=size, matrix=matrix)
    corner = read('clip.mp4')[0][0][4:12, 4:24].reshape(-1, 3).mean(0)
    assert np.abs(corner - [200, 30, 60]).max() < 4


# What is broken

def patched(name: bytes, offset: int, value: int) -> None:
    """Write bad.mp4, the clip with a number of a box changed."""
    content = bytearray(clip())
    start = content.index(name) + 4 + offset
    content[start:start + 4] = value.to_bytes(4, 'big')
    Path('bad.mp4').write_bytes(content)


def playlist() -> None:
    clip()
    Path('bad.mp4').write_text('#EXTM3U\n#EXTINF:4\nclip.mp4\n#EXT-X-ENDLIST\n')


def only_sound() -> None:
    with av.open('bad.mp4', 'w') as video:
        for packets in add_sound(video):
            video.mux(packets)


def cut_off() -> None:
    content = clip()
    Path('bad.mp4').write_bytes(content[:len(content) // 2])


NO_VIDEO = 'not a video that can be read: Invalid'
BROKEN = {
    'cut off': (cut_off, 'cut off or damaged: its last frame is at '),
    'without its index': (lambda: Path('bad.mp4').write_bytes(clip()[-900:]), NO_VIDEO),
    'empty': (lambda: Path('bad.mp4').write_bytes(b''), NO_VIDEO),
    'a photo': (lambda: Image.fromarray(picture(0)).save('bad.mp4', 'PNG'), NO_VIDEO),
    'a playlist': (playlist, NO_VIDEO),
    'only sound': (only_sound, 'only sound, no video'),
    'only its index': (lambda: Path('bad.mp4').write_bytes(clip().partition(b'mdat')[0] + b'mdat'), 'without frames'),
    'no frames': (lambda: clip('bad.mp4', n=0), 'no video in it'),
}


@pytest.mark.parametrize('kind', BROKEN)
def test_what_is_broken_is_named(kind):
    make, message = BROKEN[kind]
    make()
    pixels, _, error = read('bad.mp4')
    assert message in error
    assert '\n' not in error
    assert all(close(found, picture(i)) for i, found in enumerate(pixels[:2]))


def test_frames_without_a_rate_are_read():
    """All durations of frames are 0: the rate is not known, and all times are that of the start."""
    patched(b'stts', 8, 0)
    pixels, names, _ = read('bad.mp4', every=20)
    assert [name[:6] for name in names] == ['000000', '000020']
    assert close(pixels[1], picture(20))


def test_a_frame_that_is_too_large_ends_the_video():
    clip(n=2)
    error = read('clip.mp4', max_bytes=1000)[2]
    assert f'have {W * H * 3} bytes, more than 1000; if it can be trusted: --max_bytes {W * H * 3}' in error


def test_frames_are_decoded_as_they_are_taken(monkeypatch):
    """Of an endless video, the first frames are yielded, and the file is closed when its reader is."""
    clip(n=3)
    decoded, decode = [], av.container.InputContainer.decode

    class Endless:
        def __init__(self, video):
            self.video = video

        def __getattr__(self, name):
            return getattr(self.video, name)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.video.close()

        def decode(self, stream):
            frame = next(decode(self.video, stream))
            while True:
                decoded.append(1)
                yield frame
    original = av.open
    monkeypatch.setattr(av, 'open', lambda *given, **named: Endless(original(*given, **named)))
    images = images_in('clip.mp4', How(every=1000))
    for _ in range(5):
        next(images)
    assert len(decoded) == 4001
    images.close()


# The command

def scored_rows(words, capsys) -> tuple[pd.DataFrame, str]:
    capsys.readouterr()
    test_demo.main([*words, '--csv', 'scores.csv'])
    return pd.read_csv('scores.csv'), capsys.readouterr().out


def test_a_video_has_a_row_for_each_nth_frame_its_mean_and_its_worst_second(scored, capsys):
    clip()
    table, out = scored_rows([*scored, '--img', 'clip.mp4', '--every', '4', '--curve', 'curve.png'], capsys)
    assert table.name.tolist() == [f'clip.mp4/{i:06d}@{i / RATE:.3f}s' for i in range(0, 40, 4)]
    second = table.name.str.extract(r'@(\d+)\.')[0].astype(int)
    means = table.score.groupby(second).mean()
    assert f'clip.mp4: mean score {table.score.mean():.4g} of 10 frames; worst second {means.idxmin()}-' in out
    assert f' s: {means.min():.4g} (' in out
    with Image.open('curve.png') as image:
        assert image.format == 'PNG'
    before = table
    table, out = scored_rows([*scored, '--img', 'clip.mp4', '--every', '2', '--resume'], capsys)
    assert len(table) == 20
    assert '10 images scored, 10 were scored before' in out
    assert table.set_index('name').score[before.name].tolist() == before.score.tolist()


def test_a_broken_video_is_named_and_the_others_are_scored(scored, capsys):
    content = clip(n=20)
    Path('bad.mp4').write_bytes(content[:len(content) // 2])
    with pytest.raises(SystemExit) as stop:
        test_demo.main([*scored, '--img', 'bad.mp4', 'clip.mp4'])
    out, err = capsys.readouterr()
    assert stop.value.code == 1
    assert 'clip.mp4/000010@1.000s' in out
    assert 'bad.mp4: cut off or damaged' in err
    assert 'clip.mp4: mean score ' in err


def test_mistakes(scored, fails, monkeypatch):
    clip(n=1)
    Image.fromarray(picture(0)).save('a.png')
    assert '--curve draws the scores of videos over time: give a video' in fails(
        test_demo.main, *scored, '--img', 'a.png', '--curve', 'curve.png')
    assert 'none.mp4: no such file' in fails(test_demo.main, *scored, '--img', 'none.mp4')
    monkeypatch.setitem(sys.modules, 'av', None)
    assert '--img clip.mp4: reading a video needs av: pip install av' in fails(
        test_demo.main, *scored, '--img', 'clip.mp4')
