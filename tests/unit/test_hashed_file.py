"""Files that are hashed while they are written."""

import hashlib
import os
from pathlib import Path

import pytest

from visae.activations.hashed import HashedFile


def test_all_pieces_are_written_in_order_and_hashed(tmp_path):
    pieces = [bytes([number]) * (1 + 7919 * number) for number in range(40)]
    file = HashedFile(tmp_path / "file")
    assert [file.write(piece) for piece in pieces] == [len(piece) for piece in pieces]
    file.close()
    file.close()
    assert (tmp_path / "file").read_bytes() == b"".join(pieces)
    assert file.sha256.digest() == hashlib.sha256(b"".join(pieces)).digest()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a disk that is always full")
def test_a_failure_to_write_is_raised_by_a_later_piece_or_by_the_end():
    file = HashedFile(Path("/dev/full"), waiting=2)
    file.write(b"piece")
    file.write(b"piece")
    with pytest.raises(OSError, match="No space left"):
        file.write(b"piece")
    last = HashedFile(Path("/dev/full"))
    last.write(b"piece")
    with pytest.raises(OSError, match="No space left"):
        last.close()
