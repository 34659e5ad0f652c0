"""Info files: anything in them is an info file or an error in one line, and no other file is read."""
import json
import tracemalloc

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from iqa_data.info import read_info, write_info
from iqa_runtime.errors import UserError, one_line

N = 6
NAMES = [f'{i}.png' for i in range(N)]


@pytest.fixture
def mat(tmp_path):
    """A good file."""
    path = tmp_path / 'x.mat'
    write_info(path, NAMES, range(N), np.ones(N), range(1, N + 1), np.arange(1, N + 1)[:, None],
               part=np.array(['train'] * 4 + ['val', 'test'], object), about={'higher_is_better': True})
    return path


def put(key, **arguments):
    """A change: the array `key` becomes another one."""
    def change(file):
        if key in file:
            del file[key]
        file.create_dataset(key, **arguments)
    return change


def link(key, target):
    def change(file):
        if key in file:
            del file[key]
        file[key] = target
    return change


def names(*texts, change=lambda units: units):
    """A change: other names."""
    def put_names(file):
        del file['im_names']
        refs = file.create_dataset('im_names', (1, len(texts)), dtype=h5py.ref_dtype)
        for i, text in enumerate(texts):
            units = np.frombuffer(text.encode('utf-16-le', 'surrogatepass'), '<u2')[:, None]
            refs[0, i] = file.create_dataset(f'name{i}', data=change(units)).ref
    return put_names


def null_name(file):
    file['im_names'][0, 2] = h5py.Reference()


def group_name(file):
    file['im_names'][0, 2] = file['#refs#'].ref


def external_name(file):
    elsewhere = file.create_dataset('elsewhere', (4, 1), '<u2', external=[('/etc/hostname', 0, 8)])
    file['im_names'][0, 2] = elsewhere.ref


def virtual(file):
    del file['subjective_scores']
    layout = h5py.VirtualLayout((1, N), float)
    layout[:] = h5py.VirtualSource('other.h5', 'x', (1, N))
    file.create_virtual_dataset('subjective_scores', layout)


def about(value):
    return lambda file: file.attrs.__setitem__('about', value)


CASES = {
    'scalar MOS': (put('subjective_scores', data=3.), 'subjective_scores is float64 of the shape ()'),
    'text MOS': (put('subjective_scores', data='abc'), 'subjective_scores is object of the shape ()'),
    '1-d MOS': (put('subjective_scores', data=np.ones(N)), r'of the shape (6,), expected a matrix of numbers'),
    'column MOS': (put('subjective_scores', data=np.ones((N, 1))), r'of the shape (6, 1), expected (1, N)'),
    'complex MOS': (put('subjective_scores', data=np.ones((1, N), complex)), 'complex128'),
    'empty MOS': (put('subjective_scores', data=h5py.Empty('f8')), 'subjective_scores is float64 of the shape None'),
    'NaN MOS': (put('subjective_scores', data=[[1, 2, np.nan, 4, 5, 6]]), 'the MOS of 2.png is not a finite number'),
    'infinite std': (put('subjective_scoresSTD', data=[[1, 2, np.inf, 4, 5, 6]]), 'the std of 2.png is inf'),
    '10^12 MOS': (put('subjective_scores', shape=(1, 10 ** 12), dtype='f8', chunks=(1, 1000)), '(1, 1000000000000)'),
    '10^12 names': (put('im_names', shape=(1, 10 ** 12), dtype=h5py.ref_dtype, chunks=(1, 10)), '(1, 1000000000000)'),
    '10^12 permutations': (put('index', shape=(10 ** 6, 10 ** 6), dtype='f8', chunks=(1, 9)), 'at most 33554432 n'),
    'MOS in a group': (lambda file: (file.pop('ref_ids'), file.create_group('ref_ids')), 'ref_ids is a group'),
    'external link': (link('index', h5py.ExternalLink('other.h5', '/x')), 'index is a link to another place'),
    'soft link': (link('index', h5py.SoftLink('/ref_ids')), 'index is a link to another place'),
    'cycle of links': (lambda file: [link(*pair)(file) for pair in (('index', h5py.SoftLink('/a')),
                                                                    ('a', h5py.SoftLink('/index')))],
                       'index is a link to another place'),
    'external storage': (put('subjective_scores', shape=(1, N), dtype='f8', external=[('/etc/passwd', 0, 48)]),
                         'subjective_scores: its numbers lie in another file'),
    'virtual data set': (virtual, 'subjective_scores: its numbers lie in another file'),
    'name in another file': (external_name, 'im_names, image 3: its numbers lie in another file'),
    'null name': (null_name, 'im_names, image 3: expected a reference to a text'),
    'group as name': (group_name, 'im_names, image 3: expected a reference to a text'),
    'numbers as names': (put('im_names', data=np.ones((1, N))), 'im_names is float64 of the shape (1, 6), expected'),
    'float name': (names(*NAMES, change=lambda units: units.astype(float)), 'image 1: expected a reference to a text'),
    'long name': (names(*NAMES[:5], 'x' * 5000), 'image 6: expected a text of 1 to 4096 characters'),
    'broken name': (names(*NAMES[:5], '\ud800'), 'image 6: not a text in UTF-16'),
    'image twice': (names(*NAMES[:5], './0.png'), 'x.mat row 6: 0.png again, first in row 1, with the mos 0 and 5'),
    'image 40 times': (names(*['0.png'] * N), '(5 rows repeat an image)'),
    'control character': (names(*NAMES[:5], 'a\x1b[31m'), r"the image 'a\x1b[31m' has a control character"),
    'NUL': (names(*NAMES[:5], 'a\0'), 'has a control character'),
    'part 0': (put('part', data=[[1, 1, 0, 2, 2, 3]]), 'part of image 3 is 0; expected 1 train, 2 val or 3 test'),
    'part 4': (put('part', data=[[1, 1, 1, 2, 2, 4]]), 'part of image 6 is 4; expected'),
    'part nan': (put('part', data=[[1, 1, np.nan, 2, 2, 3]]), 'part of image 3 is nan; expected'),
    'part 1.5': (put('part', data=[[1, 1, 1.5, 2, 2, 3]]), 'part of image 3 is 1.5; expected'),
    'part too short': (put('part', data=[[1., 1]]), 'the fields disagree in length'),
    'fraction': (put('ref_ids', data=[[1, 2, 3, 4, 5, 5.5]]), 'ref_ids holds 5.5, expected whole numbers'),
    'huge content': (put('ref_ids', data=[[1, 2, 3, 4, 5, 1e300]]), 'ref_ids holds 1e+300, expected whole numbers'),
    'content twice in a split': (put('index', data=[[1.], [2], [3], [4], [5], [5]]), 'column 1 is no permutation of'),
    'index from 0': (put('index', data=np.arange(6.)[:, None]), 'column 1 is no permutation of 1 to 6'),
    'text as higher_is_better': (about('{"higher_is_better": "false"}'), 'about: higher_is_better is "false", exp'),
    'text as repeated': (about('{"repeated": "false"}'), 'about: repeated is "false", expected true or false'),
    'number as higher_is_better': (about('{"higher_is_better": 0}'), 'about: higher_is_better is 0, expected true or'),
    'deep JSON': (about('[' * 30_000), 'about: not JSON of a usual form'),
    'long number': (about('{"x": ' + '9' * 9000 + '}'), 'about: not JSON of a usual form'),
}


@pytest.mark.parametrize('case', CASES)
def test_malformed_in_one_line(mat, case):
    change, message = CASES[case]
    with h5py.File(mat, 'r+') as file:
        change(file)
    tracemalloc.start()
    with pytest.raises(UserError) as error:
        read_info(mat)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert message in str(error.value)
    assert str(error.value).count(str(mat)) == 1
    assert one_line(str(error.value)) == str(error.value)
    assert most < 50e6


@pytest.mark.parametrize('value', [3, [1, 2], b'{"higher_is_better": false}', 'no JSON', '[]', np.zeros(3)])
def test_an_attribute_of_somebody_else(mat, value):
    with h5py.File(mat, 'r+') as file:
        file.attrs['about'] = value
    assert read_info(mat).higher_is_better == (value != b'{"higher_is_better": false}' if isinstance(value, bytes)
                                               else True)


def test_tables_follow_the_same_rules(tmp_path):
    for value, message in (('"false"', 'higher_is_better is "false"'), ('true', ''), ('[' * 30_000, 'not JSON of')):
        text = json.dumps({'higher_is_better': 1}).replace('1', value).replace('"', '""')
        (tmp_path / 'x.csv').write_text(f'image,mos,about\na.png,1,"{text}"\n')
        if message:
            with pytest.raises(UserError, match=message):
                read_info(tmp_path / 'x.csv')
        else:
            assert read_info(tmp_path / 'x.csv').higher_is_better is True
    (tmp_path / 'x.csv').write_bytes(b'image,mos\n"a\n.png",1\n')
    with pytest.raises(UserError, match=r"the image 'a\\n.png' has a control character"):
        read_info(tmp_path / 'x.csv')


VALUES = st.one_of(
    st.floats(), st.text(st.characters(codec='utf-8', exclude_characters='\0'), max_size=3),  # h5py writes no NUL
    st.lists(st.floats(width=32), max_size=7), st.integers(-3, 2 ** 40),
    st.lists(st.integers(-1, 7), min_size=N, max_size=N).map(lambda row: [row]),
    st.lists(st.integers(-1, 7), min_size=N, max_size=N).map(lambda row: [[value] for value in row]),
    st.sampled_from([np.zeros((0, 0)), np.ones((1, N), bool), np.ones((1, N), 'S3'), np.ones((2, N)), b'abc',
                     np.ones((1, N), [('a', 'f4')]), np.ones((1, N), '>i2'), np.full((1, N), np.nan)]))
KEYS = st.sampled_from(['im_names', 'subjective_scores', 'subjective_scoresSTD', 'ref_ids', 'index', 'part', 'about'])


def reads_or_says_why(path) -> None:
    try:
        info = read_info(path)
    except UserError as error:
        assert str(path) in str(error)  # noqa: PT017
        assert len(str(error)) < 1000  # noqa: PT017
    else:
        assert len(set(info.names)) == len(info.names) == len(info.mos)
        assert np.isfinite(info.mos).all()
        assert isinstance(info.higher_is_better, bool)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.dictionaries(KEYS, VALUES, max_size=3))
def test_any_value_under_any_key(tmp_path_factory, changes):
    path = tmp_path_factory.getbasetemp() / 'any.mat'
    write_info(path, NAMES, range(N), np.ones(N), range(1, N + 1), np.arange(1, N + 1)[:, None])
    with h5py.File(path, 'r+') as file:
        for key, value in changes.items():
            if key == 'about':
                file.attrs[key] = value
            else:
                put(key, data=value)(file)
    reads_or_says_why(path)


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_any_text_as_a_table(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / 'any.csv'
    cells = st.sampled_from(['image', 'mos', 'std', 'reference', 'part', 'about', 'a.png', 'b.png', '../c', '1', '-2.5',
                             'nan', '1e999', 'train', 'x', '', '"', '{"higher_is_better": 3}', '\0', '\r', '\x1b']
                            ) | st.text(max_size=4)
    rows = data.draw(st.lists(st.lists(cells, min_size=1, max_size=5), max_size=6))
    head = data.draw(st.sampled_from(['', 'image,mos\n', 'image;mos;std\n', 'image,mos,part,about\n',
                                      '\ufeffimage,mos\n']))
    text = head + '\n'.join(data.draw(st.sampled_from([',', ';', '\t'])).join(row) for row in rows)
    path.write_bytes(text.encode('utf-8', 'surrogatepass') + data.draw(st.sampled_from([b'', b'\xff', b'\n'])))
    reads_or_says_why(path)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=5), st.floats(.1, 1))
def test_any_bytes(tmp_path_factory, changes, kept):
    path = tmp_path_factory.getbasetemp() / 'bytes.mat'
    write_info(path, NAMES, range(N), np.ones(N), range(1, N + 1), np.arange(1, N + 1)[:, None])
    content = bytearray(path.read_bytes())
    for place, value in changes:
        content[int(place * (len(content) - 1))] = value
    path.write_bytes(content[:int(kept * len(content))] if kept < .2 else content)
    reads_or_says_why(path)
