"""What this machine has."""
import os


def memory() -> int | None:
    """Return the bytes of memory of this machine; None on a system that has no way to ask, as Windows."""
    if not hasattr(os, 'sysconf'):
        return None
    return os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
