"""Devices: an address -> a connected device: an attached phone, a virtual one, or this machine."""

from quadbench.devices.connections import list_devices
from quadbench.devices.device import Device

__all__ = ["Device", "list_devices"]
