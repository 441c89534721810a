"""Queries on a mounted vector store, one message each.

    from rvf_mount import Query
    with Query("/mnt/store") as query:
        ids, distances = query(vector, k=10)
"""

import fcntl
import os
import struct

import numpy as np


class Query:
    """An open `query/in`. Give the store's directory, or a session's (`/mnt/store/query/mine`)."""

    def __init__(self, directory):
        path = os.path.join(directory, "query", "in")
        self.fd = os.open(path if os.path.exists(path) else os.path.join(directory, "in"), os.O_RDWR)

    def __call__(self, vector, k=10, ef=0, exact=False):
        """The k nearest of a vector: ids (uint64) and distances (float32). Raises OSError; see query/error."""
        vector = np.ascontiguousarray(vector, dtype="<f4").ravel()
        size = 24 + max(4 * vector.size, 12 * k)
        if size > 16383:
            raise ValueError("too large for one message: write the vector to query/in and read the answer")
        buffer = bytearray(size)
        struct.pack_into("<6I", buffer, 0, 1, k, ef, vector.size, int(exact), 0)
        buffer[24 : 24 + 4 * vector.size] = vector.tobytes()
        fcntl.ioctl(self.fd, 3 << 30 | size << 16 | ord("R") << 8 | 1, buffer)
        count = struct.unpack_from("<I", buffer)[0]
        return np.frombuffer(buffer, "<u8", count, 24), np.frombuffer(buffer, "<f4", count, 24 + 8 * count)

    def close(self):
        """Closes the descriptor."""
        os.close(self.fd)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
