"""Devices: an address -> a connected device: an attached phone, a virtual one, or this machine."""

from quadbench.devices.connections import SERIAL_VARIABLE, DeviceRow, HostedPhone, connect, hosted_phones, list_devices
from quadbench.devices.device import Device

__all__ = [
    "SERIAL_VARIABLE",
    "Device",
    "DeviceRow",
    "HostedPhone",
    "connect",
    "hosted_phones",
    "list_devices",
]
