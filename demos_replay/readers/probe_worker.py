"""Child process of :mod:`.probe` that reads HDF5 files and may crash on them.

Its argument is the size of the largest dataset to read, in bytes: it cannot import the readers' limit, because it may
run from anywhere. It reads one path per line (a JSON string) from standard input and answers each with a line of JSON:
null or the error.
"""

import json
import sys

import h5py


def touch(path: str, most: int) -> None:
    """Read everything that a reader may read: links, objects, attributes, and numbers with one or two axes.

    ``most`` is the size of the largest dataset or attribute to read, in bytes.
    """
    with h5py.File(path, "r", locking=False) as file:
        names: list[bytes] = []
        file.id.links.visit(names.append, info=False)
        for name in [b".", *names]:
            try:
                item = h5py.h5o.open(file.id, name)
            except (KeyError, RuntimeError, OSError):
                continue  # A dangling link.
            for i in range(h5py.h5a.get_num_attrs(item)):
                attribute = h5py.h5a.open(item, index=i)
                if attribute.get_storage_size() < most:
                    file[name].attrs.get(attribute.name)
            if isinstance(item, h5py.h5d.DatasetID):
                size = item.dtype.itemsize * item.get_space().get_simple_extent_npoints()
                if item.rank <= 2 and size < most and item.dtype.kind in "fiub":
                    h5py.Dataset(item)[()]


def main() -> None:
    for line in sys.stdin:
        try:
            touch(json.loads(line), int(sys.argv[1]))
            answer = None
        except Exception as error:
            # Any exception from h5py is an answer; only a crash is not.
            answer = f"{type(error).__name__}: {error}"
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
