"""Import from an MLflow tracking server, over its REST API 2.0.

Needs `pip install 'modelyard[mlflow]'`; MLflow itself is not needed here.
"""

from __future__ import annotations

from modelyard.importing.mlflow.importer import Importer, Summary
from modelyard.importing.mlflow.server import MlflowError, MlflowServer

__all__ = ["Importer", "MlflowError", "MlflowServer", "Summary"]
