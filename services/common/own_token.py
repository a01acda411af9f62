"""A process's own token: in a file that is read at each use, for it may be replaced meanwhile."""

from __future__ import annotations

import logging
from pathlib import Path

from services.common.errors import Reason, ServiceError
from services.common.safe_start import read_private
from services.common.settings import SettingsError

logger = logging.getLogger(__name__)


class OwnToken:
    """The token by which a process of the suite is known to the others."""

    def __init__(self, file: str) -> None:
        """Name the file; it may be missing as yet, for metadata makes it.

        Raises:
            SettingsError: everybody may read it.
        """
        self._path = Path(file)
        if self._path.is_file():
            read_private(self._path)

    def read(self) -> str:
        """Return the token.

        Raises:
            ServiceError: SERVICE_UNAVAILABLE while it cannot be read, everybody may, or it holds
                none, as while somebody writes it anew.
        """
        try:
            token = read_private(self._path).decode("ascii", "replace").strip()
            if not (token.isascii() and token.isprintable() and token):
                raise SettingsError(f"{self._path}: holds no token")
            return token
        except SettingsError as error:
            logger.error("own token not read", extra={"error": str(error)})
            message = "a service of the suite has no token of its own at present"
            raise ServiceError(Reason.SERVICE_UNAVAILABLE, message) from None
