"""What operations need from the outside, as small Protocols that carry their promises.

Every promise is checked by the contract suite, which runs the same cases against the fakes and the real adapters.
Where nothing else is said: calls may be repeated (a repeat finds what is there), block until done, and raise
PlatformBroke when the server behind them is at fault.
"""

from __future__ import annotations

from branchline.ports.basics import Interrupt, Log
from branchline.ports.config import ConfigReader, ConfigWriter, Written
from branchline.ports.containers import (
    FOLDER,
    INSIDE,
    NETWORK,
    SECRETS,
    STOPPED,
    Containers,
    Instance,
    InstanceState,
    Probes,
    ServiceSpec,
)
from branchline.ports.databases import Databases
from branchline.ports.images import ImageArchive, Images
from branchline.ports.notary import Notary
from branchline.ports.source import Revision, Source
from branchline.ports.traffic import Proxy, Route, Traffic

__all__ = [
    "FOLDER",
    "INSIDE",
    "NETWORK",
    "SECRETS",
    "STOPPED",
    "ConfigReader",
    "ConfigWriter",
    "Containers",
    "Databases",
    "ImageArchive",
    "Images",
    "Instance",
    "InstanceState",
    "Interrupt",
    "Log",
    "Notary",
    "Probes",
    "Proxy",
    "Revision",
    "Route",
    "ServiceSpec",
    "Source",
    "Traffic",
    "Written",
]
