"""Devices: an address -> a connected device: an attached phone, a virtual one, or this machine."""

from quadbench.devices.android_reports import BatteryState, Temperature, ThermalState, parse_battery, parse_thermal
from quadbench.devices.connections import SERIAL_VARIABLE, DeviceRow, HostedPhone, connect, hosted_phones, list_devices
from quadbench.devices.device import ANDROID_ROOT, Device, Progress, ShellResult

__all__ = [
    "ANDROID_ROOT",
    "SERIAL_VARIABLE",
    "BatteryState",
    "Device",
    "DeviceRow",
    "HostedPhone",
    "Progress",
    "ShellResult",
    "Temperature",
    "ThermalState",
    "connect",
    "hosted_phones",
    "list_devices",
    "parse_battery",
    "parse_thermal",
]
