"""Read frames of a video through PyAV, one after the other, in memory that does not depend on the video's length.

A video may come from an untrusted source: it is read from an open file by the demuxers of FORMATS alone, so that
nothing in it names another file or address. Its pixels are shown as players show them: turned as a phone notes it, and
with the colour matrix that the video names, else that of its size (BT.709 above 576 rows, BT.601 otherwise). Frames in
high dynamic range are converted without tone mapping.
"""
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

SUFFIXES = ('.mp4', '.m4v', '.mov', '.3gp', '.mkv', '.webm', '.avi', '.mpg', '.mpeg', '.mts', '.flv', '.wmv', '.ogv')
FORMATS = 'mov,matroska,avi,mpeg,mpegts,flv,asf,ogg'
BT709, BT601, STANDARD_ROWS = 1, 5, 576
MATRICES = {1: BT709, 5: BT601, 6: BT601, 7: 7, 9: 9}  # a video's note of its colour matrix -> swscale's number
WHOLE, SLACK = .95, 1.  # share of the duration in the header, and seconds, that a whole video may lack


class Frame(NamedTuple):
    """A frame: its number from 0 on, its time in seconds (None: not known), its pixels (H, W, 3) uint8 as PPM bytes."""

    number: int
    time: float | None
    content: bytes


def frames(path: str, every: int, max_bytes: int) -> Iterator[Frame]:
    """Yield each `every`-th frame, from the first on.

    Raises an error, after the frames before it, if the video is damaged or cut off, if it has no frames, or if the
    pixels of a frame have more than `max_bytes`.
    """
    import av
    with open(path, 'rb') as file:
        try:
            with av.open(file, options={'format_whitelist': FORMATS, 'protocol_whitelist': 'none'}) as video:
                yield from _frames(video, _stream(video), every, max_bytes)
        except (av.error.FFmpegError, OSError) as error:
            raise ValueError(f'not a video that can be read: {error.strerror}') from None


def _frames(video, stream, every: int, max_bytes: int) -> Iterator[Frame]:
    stream.thread_type = 'AUTO'
    number, end = -1, None
    for number, frame in enumerate(video.decode(stream)):
        end = _seconds(frame, stream, number)
        if number % every == 0:
            yield Frame(number, end, _ppm(frame, max_bytes))
    if number < 0:
        raise ValueError('a video without frames')
    _check_end(video, stream, end)


def _stream(video):
    """Return the first video stream; ValueError if there is none but a cover picture."""
    from av.stream import Disposition
    streams = [stream for stream in video.streams.video if not stream.disposition & Disposition.attached_pic]
    if not streams:
        raise ValueError('only sound, no video' if video.streams.audio else 'no video in it')
    return streams[0]


def _seconds(frame, stream, number: int) -> float | None:
    """Return the time of a frame after the start of its stream; None without time stamps and frame rate."""
    if frame.time is not None:
        return max(0., frame.time - float((stream.start_time or 0) * stream.time_base))
    return number / float(stream.average_rate) if stream.average_rate else None


def _ppm(frame, max_bytes: int) -> bytes:
    """Return the pixels of a frame as a PPM file."""
    size = 3 * frame.width * frame.height
    if size > max_bytes:
        raise ValueError(f'frames of {frame.width}x{frame.height} have {size} bytes, more than {max_bytes}; if it can '
                         f'be trusted: --max_bytes {size}')
    matrix = MATRICES.get(frame.colorspace, BT709 if frame.height > STANDARD_ROWS else BT601)
    pixels = frame.reformat(format='rgb24', src_colorspace=matrix).to_ndarray()
    pixels = np.rot90(pixels, round(frame.rotation / 90))
    return b'P6 %d %d 255\n' % pixels.shape[1::-1] + pixels.tobytes()


def _check_end(video, stream, end: float | None) -> None:
    """Raise ValueError if the last frame is far before the end that the header names."""
    import av
    known = stream.duration * stream.time_base if stream.duration else (video.duration or 0) / av.time_base
    if end is not None and end + SLACK < WHOLE * known:
        raise ValueError(f'cut off or damaged: its last frame is at {end:.1f} s of {float(known):.1f} s')
