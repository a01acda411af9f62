"""What a command of a build can see and write."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Room:
    """What a command can see of the machine, each at the path that it has outside."""

    folder: Path
    """The build's own folder, seen; the command starts in `start`."""
    start: Path
    writable: tuple[Path, ...] = ()
    """Folders and files in it that may be written to; what is not there is made a folder."""
    protected: tuple[Path, ...] = ()
    """Folders in it that may not be written to where there is no sandbox either."""
    readable: tuple[Path, ...] = ()
    """What else is seen, such as environments."""
    network: bool = False
    """Whether the machine's network is reached, its loopback included."""

    @property
    def temporary(self) -> Path:
        """Return the folder that is `/tmp` inside."""
        return self.folder / "tmp"

    @property
    def home(self) -> Path:
        """Return the home folder inside."""
        return self.folder / "home"

    @property
    def written(self) -> tuple[Path, ...]:
        """Return all that may be written to."""
        return (*self.writable, self.temporary, self.home)

    def prepare(self, owner: int | None) -> None:
        """Make its folders, and give them to a user of the machine's if need be."""
        for path in self.written:
            if not path.exists():
                path.mkdir()
        if owner is not None:
            for path in (self.folder, *self.folder.iterdir(), *self.written):
                os.chown(path, owner, owner, follow_symlinks=False)
            for path in self.written:
                _give(path, owner)


def interpreter_folders(environment: Path) -> tuple[Path, ...]:
    """Return the folders of the Python that a virtual environment stands on, links followed."""
    python = environment / "bin" / "python"
    places = {(python.parent / python.readlink()).parent.parent, python.resolve().parent.parent}
    names = ("bin", "lib", "lib64", "share", "ssl")
    found = {place / name for place in places for name in names if (place / name).is_dir()}
    return tuple(sorted(path for path in found if not path.is_relative_to("/usr")))


def _give(folder: Path, owner: int) -> None:
    for parent, folders, files in os.walk(folder):
        for name in (*folders, *files):
            os.chown(Path(parent) / name, owner, owner, follow_symlinks=False)
