"""The content of a file as a hash."""

from __future__ import annotations

import hashlib

from editr1.data.pictures import Picture


def sha256_of(path: Picture) -> str:
    """The SHA-256 of a file or a picture, in hexadecimal; `hashlib.file_digest` is not there before Python 3.11."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(2**20):
            digest.update(piece)
    return digest.hexdigest()
