"""Changes on either side of a mirror of ``memory://``, and what both sides hold."""

import itertools
import os

import fsspec

NUMBERS = itertools.count()


def there(address):
    files = fsspec.filesystem("memory")
    root = f"/{address.path}/"
    return {path.removeprefix(root): files.cat_file(path) for path in files.find(root)}


def here(mirror):
    return {
        path.relative_to(mirror.content).as_posix(): path.read_bytes()
        for path in mirror.content.rglob("*")
        if path.is_file()
    }


def edit_there(address, name, content):
    files = fsspec.filesystem("memory")
    if content is not None:
        files.pipe_file(f"/{address.path}/{name}", content)
    elif files.exists(f"/{address.path}/{name}"):
        files.rm_file(f"/{address.path}/{name}")


def edit_here(mirror, name, content):
    path = mirror.content / name
    if content is None:
        path.unlink(missing_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    os.utime(path, ns=(next(NUMBERS) * 10**6,) * 2)  # clocks of file systems are coarse
