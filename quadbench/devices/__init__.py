"""Parse device addresses, and connect to the devices: attached phones, virtual phones, or this machine."""

from quadbench.devices.addresses import Address, parse_addresses
from quadbench.devices.connections import HostedPhone, list_devices
from quadbench.devices.device import Device

__all__ = ["Address", "Device", "HostedPhone", "list_devices", "parse_addresses"]
