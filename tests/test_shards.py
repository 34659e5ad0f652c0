"""Images in shards: read as those in files are, whole or named as broken; nothing in a shard harms."""
import io
import os
import re
import tarfile
import threading
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from scored import photo
from shards import png, save_parquet, save_tar

from iqa_data.transforms import Preprocess
from iqa_runtime.errors import UserError
from iqa_scoring.inputs import MOST, expanded, find_images, names_in
from iqa_scoring.shards import BLOCK, End, How, Packed, images_in, is_shard, prefetched
from iqa_scoring.stream import WAITING, Reader, Sample, decode

ANY = settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))
READ = Reader(Preprocess(), max_pixels=10_000)


def read(shard, *options) -> tuple[list[Packed], str]:
    """The images in a shard, and what is wrong with it."""
    *images, end = images_in(str(shard), How(*options))
    assert isinstance(end, End)
    assert end.path == str(shard)
    return images, end.error


def contents(images: list[Packed]) -> dict[str, bytes]:
    return {image.key: image.content for image in images}


# Tar

@given(st.dictionaries(st.from_regex(r'(a/|b/)?[0-9a-zé]{1,120}', fullmatch=True), st.binary(max_size=2000),
                       min_size=1, max_size=6))
@ANY
def test_a_tar_is_read_as_webdataset_reads_it(tmp_path_factory, samples):
    webdataset = pytest.importorskip('webdataset')
    path = str(tmp_path_factory.mktemp('wds') / '0.tar')
    with webdataset.TarWriter(path) as writer:
        for key, content in samples.items():
            writer.write({'__key__': key, 'left.png': content, 'jpg': content[::-1], 'json': b'{}', 'pyd': b'cos'})
    expected = {}
    with open(path, 'rb') as stream:
        for sample in webdataset.tariterators.tar_file_iterator(stream):
            if sample['fname'].endswith(('png', 'jpg')):
                expected[sample['fname']] = sample['data']
    images, error = read(path)
    assert (contents(images), error) == (expected, '')
    left, error = read(path, 'LEFT.png')
    assert (contents(left), error) == ({f'{key}.left.png': content for key, content in samples.items()}, '')


def test_other_members_are_passed_over(tmp_path):
    inner = Path(save_tar(tmp_path / 'inner.tar', {'x.png': b'x'})).read_bytes()
    path = save_tar(tmp_path / '0.tar', {'1.txt': b'', 'dir.png/2.PNG': b'2', '.hidden.png': b'', '._3.png': b'',
                                         'nested.tar': inner, '4': b'', '5.jpg': b'5'})
    images, error = read(path)
    assert (contents(images), error) == ({'dir.png/2.PNG': b'2', '5.jpg': b'5'}, '')
    assert images[0].path == f'{path}/dir.png/2.PNG'
    assert read(save_tar(tmp_path / '1.tar', {'a.txt': b''})) == ([], 'no image in it')
    assert read(save_tar(tmp_path / '2.tar', {})) == ([], 'no image in it')
    assert read(path, 'webp') == ([], 'no image in it')


@given(data=st.data())
@ANY
def test_a_tar_that_was_cut_off_gives_its_first_images(tmp_path_factory, data):
    path = tmp_path_factory.mktemp('cut') / '0.tar'
    sizes = data.draw(st.lists(st.integers(0, 1500), min_size=1, max_size=4))
    members = {f'{"long" * 40 * (i % 2)}{i}.png': os.urandom(size) for i, size in enumerate(sizes)}
    whole = Path(save_tar(path, members)).read_bytes()
    end = whole.rstrip(b'\0')
    end_block = -(-len(end) // BLOCK) * BLOCK + 2 * BLOCK  # of the blocks of zeros, if the last member is not empty
    cut = data.draw(st.integers(0, len(whole)))
    path.write_bytes(whole[:cut])
    images, error = read(path)
    assert list(contents(images).items()) == list(members.items())[:len(images)]
    if cut < len(end):
        assert error
    if cut >= end_block + max(sizes):
        assert not error
        assert len(images) == len(members)


@given(data=st.data())
@ANY
def test_a_damaged_tar_or_parquet_ends(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp('damaged')
    path = Path(data.draw(st.sampled_from([
        save_tar(folder / '0.tar', {f'{i}.png': bytes(700 * i) for i in range(4)}),
        save_parquet(folder / '0.parquet', 2, image=[bytes(90 * i) for i in range(6)], id=list(range(6)))])))
    content = bytearray(path.read_bytes())
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=3)):
        content[place] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    images, error = read(path)
    assert sum(len(image.content) for image in images) <= 1 << 20
    assert error == error.strip()
    assert '\n' not in error


def test_hostile_members(tmp_path):
    """None is followed, unpacked or read beyond its bound, whatever its header says."""
    path = tmp_path / '0.tar'
    with tarfile.open(path, 'w', format=tarfile.GNU_FORMAT) as tar:
        def add(name, kind=tarfile.REGTYPE, content=b'', **fields):
            member = tarfile.TarInfo(name)
            member.type, member.size = kind, len(content)
            for field, value in fields.items():
                setattr(member, field, value)
            tar.addfile(member, io.BytesIO(content))
        add('../../../outside.png', content=b'1')
        add('/etc/absolute.png', content=b'2')
        add('soft.png', tarfile.SYMTYPE, linkname='/etc/passwd')
        add('hard.png', tarfile.LNKTYPE, linkname='/etc/passwd')
        add('device.png', tarfile.CHRTYPE)
        add('pipe.png', tarfile.FIFOTYPE)
        add('same.png', content=b'3')
        add('same.png', content=b'4')
        add('new\nline\x1b[31m.png', content=b'5')
        add('large.png', content=bytes(2000))
        add('last.png', content=b'6')
    images, error = read(path, None, 1000)
    assert error == ''
    by_key = [(image.key, image.error or image.content) for image in images]
    assert by_key == [('../../../outside.png', b'1'), ('/etc/absolute.png', b'2'),
                      ('soft.png', 'a link, which is not followed'), ('hard.png', 'a link, which is not followed'),
                      ('device.png', 'not a file'), ('pipe.png', 'not a file'), ('same.png', b'3'),
                      ('same.png', 'a second image of this name in the shard'), ('new\nline\x1b[31m.png', b'5'),
                      ('large.png', '2000 bytes are more than 1000; if it can be trusted: --max_bytes 2000'),
                      ('last.png', b'6')]
    assert sorted(os.listdir(tmp_path)) == ['0.tar']


def header(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    member = tarfile.TarInfo(name)
    member.size, member.type = size, kind
    return member.tobuf(tarfile.GNU_FORMAT)


def of_size(size: str) -> bytes:
    """The headers of a.png, whose extended one states the size."""
    member = tarfile.TarInfo('a.png')
    member.pax_headers = {'size': size}
    return member.tobuf(tarfile.PAX_FORMAT)


@given(data=st.data())
@ANY
def test_zeros_in_a_tar_lose_no_image_unseen(tmp_path_factory, data):
    """Zeros over any blocks, or another tar behind the end: all images are read, or the shard is broken."""
    path = tmp_path_factory.mktemp('zeros') / '0.tar'
    sizes = data.draw(st.lists(st.integers(0, 1500), min_size=1, max_size=5))
    members = {f'{i}.png': b'x' * size for i, size in enumerate(sizes)}
    whole = Path(save_tar(path, members)).read_bytes()
    content = bytearray(whole + whole[:-8 * BLOCK] * data.draw(st.booleans()))
    last = len(whole.rstrip(b'\0')) // BLOCK
    first = data.draw(st.integers(0, last))
    count = data.draw(st.integers(0, last - first))  # the last member's data stays: else the tar is a good one
    content[first * BLOCK:(first + count) * BLOCK] = bytes(count * BLOCK)
    path.write_bytes(content)
    images, error = read(path)
    assert error or [image.key for image in images] == list(members)
    if bytes(content) != whole and sizes[-1]:
        assert error or contents(images) != members


def test_a_compressed_tar_is_a_broken_shard(tmp_path, shared):
    for name in ('shard.tar.gz', 'duplicate_member.tar'):
        assert is_shard(name)
    images, error = read(shared / 'bugs' / 'shard.tar.gz')
    assert images == []
    assert error.startswith('a compressed tar: unpack it')
    assert find_images([str(shared / 'bugs' / 'shard.tar.gz')])[0] == [str(shared / 'bugs' / 'shard.tar.gz')]
    images, error = read(shared / 'bugs' / 'duplicate_member.tar')
    assert [(image.key, image.error) for image in images] == [
        ('0.jpg', ''), ('0.jpg', 'a second image of this name in the shard')]


def test_ten_gigabytes_are_passed_over_unread(tmp_path):
    path = tmp_path / '0.tar'
    with open(path, 'wb') as file:  # the file has a hole: it takes no room on the disk
        file.write(header('huge.png', 10 << 30))
        file.seek(10 << 30, os.SEEK_CUR)
        file.write(header('next.png', 0) + bytes(2 * BLOCK))
    images, error = read(path)
    assert error == ''
    assert images[0].error.startswith(f'{10 << 30} bytes are more than ')
    assert images[1] == Packed(str(path), 'next.png')
    assert READ(0, images[0]).error == images[0].error


@pytest.mark.parametrize(('content', 'message'), [
    (b'', 'empty file'), (b'no tar' * 200, 'invalid header|bad checksum'),
    (header('a.png', 5) + b'abc', r'cut off in a\.png: 5 bytes, of which 3 are there'),
    (header('a.png', 10 << 30), r'cut off in a\.png'), (header('a.png', 0), 'cut off or damaged at byte 512'),
    (header('a.png', 0) + b'x' * BLOCK, 'cut off or damaged at byte 512 .1 images of it were read'),
    (header('x', 1 << 40, tarfile.XHDTYPE), r'a header of \d+ bytes'),
    (header('x', 1 << 40, tarfile.GNUTYPE_LONGNAME), r'a header of \d+ bytes'),
    (header('a.png', -1024) + bytes(2 * BLOCK), 'a.png has -1024 bytes|invalid header'),
    (of_size('-7') + bytes(3 * BLOCK), r'a\.png has -7 bytes'),
    (header('a.png', 0) + bytes(BLOCK), 'cut off or damaged at byte 512'),
    (header('a.png', 0) + bytes(1 << 18), 'its end is at byte 512, and 262144 bytes follow: written in part'),
    (2 * (header('a.png', 0) + bytes(2 * BLOCK)), 'end is at byte 512, and there is more at byte 1536: tars that were'),
    (header('x', 0, tarfile.GNUTYPE_LONGNAME) * 3000, 'recursion|header')])
def test_broken_tars(tmp_path, content, message):
    (tmp_path / '0.tar').write_bytes(content)
    assert re.search(message, read(tmp_path / '0.tar')[1])


def test_a_shard_that_is_no_file(tmp_path):
    os.mkfifo(tmp_path / '0.tar')
    assert read(tmp_path / '0.tar') == ([], 'not a file')
    assert read(tmp_path / 'gone.parquet') == ([], 'no such file')


# Parquet

def test_columns_of_a_parquet(tmp_path):
    images = [b'a', b'b', b'c']
    hugging_face = [{'bytes': b'a', 'path': 'x.png'}, {'bytes': b'b', 'path': None}, {'bytes': b'c', 'path': '../z'}]

    def keys(**columns):
        found, error = read(save_parquet(tmp_path / '0.parquet', 2, **columns))
        assert error == ''
        assert [image.content for image in found] == images
        return [image.key for image in found]
    assert keys(image=hugging_face) == ['x.png', '1', '../z']
    assert keys(image=hugging_face, id=[7, 8, None]) == ['7', '8', '2']
    assert keys(label=[1, 2, 3], jpg=images, __key__=['k1', 'k2', 'k3']) == ['k1', 'k2', 'k3']
    assert keys(bytes=pa.array(images, pa.large_binary()), path=['p', 'q', '']) == ['p', 'q', '2']
    assert keys(image=['not', 'the', 'bytes'], png=images) == ['0', '1', '2']
    path = save_parquet(tmp_path / '1.parquet', other=images, label=[1, 2, 3])
    assert read(path)[1].startswith('no column image, jpg, jpeg, png, webp or bytes with bytes')
    assert 'among: other, label; --image_column names it' in read(path)[1]
    assert contents(read(path, 'other')[0]) == {'0': b'a', '1': b'b', '2': b'c'}
    assert "no column 'label'" in read(path, 'label')[1]


def test_rows_without_bytes_and_odd_names(tmp_path):
    odd = pa.array([b'caf\xe9', b'a\nb', b'x' * 5000, b'']).cast(pa.binary()).view(pa.string())
    path = save_parquet(tmp_path / '0.parquet', image=[{'bytes': None, 'path': '/etc/passwd'}, None,
                                                       {'bytes': b'12345', 'path': None}, {'bytes': b'', 'path': 'e'}],
                        key=odd)
    images, error = read(path, None, 4)
    assert error == ''
    assert [image.error for image in images] == ['no bytes, only a path, which is not followed', 'no bytes',
                                                 '5 bytes are more than 4; if it can be trusted: --max_bytes 5', '']
    assert [image.key for image in images] == ['caf\udce9', 'a\nb', 'x' * 1024, '3']
    assert READ(0, images[3]).error == 'cannot identify image file'


def test_a_broken_row_group_is_named_and_the_others_are_read(tmp_path):
    path = Path(save_parquet(tmp_path / '0.parquet', 2, image=[bytes([i]) * 400 for i in range(6)]))
    content = path.read_bytes()
    place = content.index(b'\3' * 50)  # in the second row group
    page = content.rindex(b'\x15', 0, place - 12)
    path.write_bytes(content[:page - 40] + os.urandom(40) + bytes(60) + content[page + 60:])
    images, error = read(path)
    assert [image.key for image in images if image.key in '0145'] == ['0', '1', '4', '5']
    assert error.startswith('row group 1 of 3: ')
    path.write_bytes(content[:len(content) // 2])
    assert read(path)[0] == []
    assert 'Parquet' in read(path)[1]


@pytest.mark.parametrize('form', [{}, {'compression': 'none'}, {'use_dictionary': False},
                                  {'data_page_size': 900, 'compression': 'zstd'}])
def test_a_changed_byte_in_a_page_is_seen(tmp_path, form):
    images = [os.urandom(400) for _ in range(12)]
    path = tmp_path / '0.parquet'
    pq.write_table(pa.table({'image': images}), path, row_group_size=4, write_page_checksum=True,
                   write_statistics=False, **form)  # statistics would hold the least image once more, unchecked
    assert read(path) == ([Packed(str(path), str(i), image) for i, image in enumerate(images)], '')
    content = bytearray(path.read_bytes())
    content[content.index(images[5][50:90])] ^= 1  # random bytes cannot be packed: they stay as they are
    path.write_bytes(content)
    found, error = read(path)
    assert error.startswith('row group 1 of 3: ')
    assert all(images[int(image.key)] == image.content for image in found)
    assert {image.key for image in found} >= set('0123') | {'8', '9', '10', '11'}


@pytest.mark.parametrize('form', [{'compression': 'gzip'}, {'compression': 'zstd', 'use_dictionary': False},
                                  {'compression': 'snappy', 'data_page_version': '2.0'}])
def test_a_small_page_of_many_bytes_is_not_unpacked(tmp_path, form):
    path = tmp_path / '0.parquet'
    images = [bytes(2 << 20), os.urandom(3 << 20), b'small']
    pq.write_table(pa.table({'image': images}), path, row_group_size=1, **form)
    found, error = read(path, None, 1 << 20)
    assert re.search(r'row group 0 of 3: a page of \d+ bytes unpacks to 20\d+, more than 1048576; .*_bytes 20', error)
    assert [(image.key, len(image.content), image.error[:7]) for image in found] == [('1', 0, '3145728'), ('2', 5, '')]
    assert [image.content for image in read(path, None, 4 << 20)[0]] == images


def test_names_that_come_again_in_a_parquet_get_their_row(tmp_path):
    path = save_parquet(tmp_path / '0.parquet', 2, image=[b'a', b'b', b'c', b'd'], id=['x', 'x', 'y', 'x'])
    assert read(path) == ([Packed(path, key, content) for key, content in
                           (('x', b'a'), ('x#1', b'b'), ('y', b'c'), ('x#3', b'd'))], '')


# The same as files

def files() -> dict[str, bytes]:
    """Images of many kinds by name, some of which cannot be read."""
    image, found = Image.fromarray(photo(1)), {}

    def add(name, image, **options):
        buffer = io.BytesIO()
        image.save(buffer, name.rpartition('.')[2].replace('jpg', 'jpeg').replace('tif', 'tiff'), **options)
        found[name] = buffer.getvalue()
    exif = Image.Exif()
    exif[0x112] = 6
    add('plain.png', image)
    add('turned.jpg', image, exif=exif)
    add('cmyk.jpg', image.convert('CMYK'))
    add('alpha.png', image.convert('RGBA'))
    add('grey16.png', Image.fromarray(np.linspace(0, 65535, 3072).astype(np.uint16).reshape(48, 64)))
    add('dark16.png', Image.fromarray(np.full((8, 8), 77, np.uint16)))
    add('floats.tif', Image.fromarray(np.full((8, 8), np.nan, np.float32)))
    add('moving.gif', image, save_all=True, append_images=[image.rotate(90)])
    add('large.png', Image.new('1', (200, 200)))
    found |= {'text.png': b'hello', 'empty.png': b'', 'cut.png': found['plain.png'][:3000],
              'phone.png': b'\0\0\0\x18ftypheic' + bytes(20)}
    return found


@pytest.mark.parametrize('kind', ['tar', 'parquet'])
def test_an_image_in_a_shard_is_what_it_is_in_a_file(tmp_path, kind):
    there = files()
    for name, content in there.items():
        (tmp_path / name).write_bytes(content)
    shard = (save_tar(tmp_path / '0.tar', there) if kind == 'tar' else
             save_parquet(tmp_path / '0.parquet', image=list(there.values()), path=list(there)))
    images, error = read(shard)
    assert error == ''
    assert [image.key for image in images] == list(there)
    unreadable = 0
    for image in images:
        mine, expected = READ(0, image), READ(0, str(tmp_path / image.key))
        assert (mine.error, mine.note) == (expected.error, expected.note)
        unreadable += bool(mine.error)
        if not mine.error:
            assert mine.pixels.equal(expected.pixels)
    assert unreadable == 7


# Names

def test_braces_and_nearest_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ('s/part-000.tar', 's/part-001.tar', 's/x{1,2}.png', 's/text.txt', 'a.png', 'b.png', 'p/0.parquet'):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).touch()
    assert find_images(['s/part-{000..002}.tar']) == ([f's/part-00{i}.tar' for i in range(3)], 0)
    assert find_images(['{a,b}.png', 's/part-{000..001}.t*', 's/x{1,2}.png'])[0] == [
        'a.png', 'b.png', 's/part-000.tar', 's/part-001.tar', 's/x{1,2}.png']
    assert find_images(['a{.png'])[0] == ['a{.png']
    assert find_images(['{s,a.png}'])[0] == ['s/x{1,2}.png', 'a.png']
    for word, message in (('s/{000..999}.tar', r's/\{000..999\}.tar: no file matches; nearest to it: s/part-00'),
                          ('s/part-*.tra', r'no file matches; nearest to it: s/part-00'),
                          ('s/part-003.tar', r'no such file; nearest to it: s/part-00'),
                          ('S/part-003.tar', r'no such file; nearest to it: s'),
                          ('p', r'the folder has no images .*; its shards are p/\*\.parquet'),
                          (f'{{0..{10 * MOST}}}.tar', f'more than {MOST} names'),
                          ('{0..9}' * 9, f'more than {MOST} names'),
                          ('{' + '{a,b}' * 30 + ',c}', f'more than {MOST} names'),  # the package makes all in a part
                          ('{' + '{a..z}' * 6 + ',c}', f'more than {MOST} names'),
                          ('x' * 10_000 + '{1..99999}.png', f'or {1 << 28} characters')):
        with pytest.raises(UserError, match=message):
            find_images([word])


@given(st.text('{}.,019ab-', max_size=14))
@ANY
def test_any_braces(word):
    try:
        names = expanded(word)
    except UserError:
        return
    assert 0 < len(names) <= MOST
    assert names == [word] or len(names) <= names_in(word)
    if '..' not in word:
        assert names == [word] or len(names) == names_in(word)
    if '{' not in word:
        assert names == [word]


@given(st.integers(0, 300), st.integers(0, 40), st.integers(1, 7))
@ANY
def test_ranges_are_those_of_a_shell(first, count, width):
    assert expanded(f'a{{{first:0{width}}..{first + count:0{width}}}}.tar') == [
        f'a{i:0{max(width, len(str(first)), len(str(first + count))) if width > len(str(first)) else 0}}.tar'
        for i in range(first, first + count + 1)]


# In flight

def test_a_thread_reads_ahead_a_bounded_distance():
    asked = []

    def items():
        for i in range(50):
            asked.append(threading.get_ident())
            yield i
    stream = prefetched(items(), 3)
    assert [next(stream) for _ in range(10)] == list(range(10))
    stream.close()
    assert len(asked) <= 13
    assert threading.get_ident() not in asked
    assert list(prefetched(range(50), 3)) == list(range(50))
    assert list(prefetched([], 3)) == []

    def fails():
        yield 1
        raise UserError('broken')
    stream = prefetched(fails())
    assert next(stream) == 1
    with pytest.raises(UserError, match='broken'):
        next(stream)


def test_bytes_in_flight_are_bounded():
    class Heavy(bytes):
        def __len__(self):
            return WAITING // 3
    taken = []

    def items():
        for i in range(20):
            taken.append(i)
            yield Packed('0.tar', str(i), Heavy())
    stream = decode(items(), lambda index, item: Sample(index, item.path), 2, 10)
    assert next(stream).index == 0
    assert len(taken) == 4
    assert [sample.index for sample in stream] == list(range(1, 20))


def test_png_is_a_photo():
    assert np.array_equal(Image.open(io.BytesIO(png(2))), photo(2))
