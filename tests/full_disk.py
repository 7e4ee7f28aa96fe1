"""A disk without room, for the files of one folder."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock


@contextmanager
def no_room(folder: Path) -> Iterator[None]:
    """Inside, what is written to the open files of `folder` meets /dev/full, and no new file can be synced.

    What a file object could not write stays in its buffer, as on a true disk, and is written when there is room again.
    """
    full = os.open("/dev/full", os.O_WRONLY)
    # Listed before the first copy is made, which would be one more.
    links = [link for link in list(Path("/proc/self/fd").iterdir()) if _is_in(link, folder)]
    taken = {int(link.name): os.dup(int(link.name)) for link in links}
    for descriptor in taken:
        os.dup2(full, descriptor)
    no_space = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    try:
        with mock.patch("os.fsync", side_effect=no_space):
            yield
    finally:
        for descriptor, copy in taken.items():
            os.dup2(copy, descriptor)
            os.close(copy)
        os.close(full)


def _is_in(link: Path, folder: Path) -> bool:
    try:
        return folder.resolve() in Path(os.readlink(link)).parents
    except OSError:
        return False  # closed since it was listed
