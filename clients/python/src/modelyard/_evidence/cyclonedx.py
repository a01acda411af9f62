"""What `bom` needs of the CycloneDX library, imported once it is wanted."""

from __future__ import annotations

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import HashAlgorithm, HashType, Property
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

__all__ = [
    "Bom",
    "Component",
    "ComponentType",
    "HashAlgorithm",
    "HashType",
    "JsonV1Dot6",
    "LicenseFactory",
    "PackageURL",
    "Property",
]
