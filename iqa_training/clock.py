"""Estimate the remaining time of a run."""
import math
import time
from collections.abc import Callable


class Clock:
    """Estimates the remaining time of a run, validations included, from the iterations of this process alone.

    Args:
        total: iterations of the whole run.
        done: iterations completed by earlier processes that were stopped.
        now: returns the time in seconds.
    """

    def __init__(self, total: int, done: int = 0, now: Callable[[], float] = time.perf_counter):
        self.total, self.begun, self.now, self.start = total, done, now, now()

    def left(self, iteration: int) -> float:
        """Return the estimated seconds left after an iteration; nan if this process has completed none."""
        done = iteration - self.begun
        return (self.now() - self.start) / done * (self.total - iteration) if done else math.nan


def in_words(seconds: float) -> str:
    """Return a duration as text: 45 s, 12 min, 3 h 05 min, 2 d 4 h; '' for nan.

    >>> in_words(11100)
    '3 h 05 min'
    """
    if math.isnan(seconds):
        return ''
    if seconds < 59.5:
        return f'{seconds:.0f} s'
    minutes = round(seconds / 60)
    if minutes < 60:
        return f'{minutes} min'
    hours = round(seconds / 3600)
    return f'{minutes // 60} h {minutes % 60:02} min' if hours < 48 else f'{hours // 24} d {hours % 24} h'
