"""IPMI as a fence device: `device` is the port, `helper` our end of the helper process, `call` the process itself."""

from fangnetz.adapters.ipmi.device import IpmiDevice
from fangnetz.adapters.ipmi.helper import IpmiHelper, shared_helper

__all__ = ["IpmiDevice", "IpmiHelper", "shared_helper"]
