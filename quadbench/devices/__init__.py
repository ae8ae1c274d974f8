"""Parse device addresses, and connect to the devices: attached phones, virtual phones, or this machine.

addresses.py        grammar of --devices; which attached phone an address means
connections.py      connects to addressed devices; rows of the device list
description.py      a device profile written from what a phone reports
device.py           interface of all devices; size limits of output; command errors
adb.py              a device over adb: shell, stream, push, pull, free space
adb_commands.py     commands over adb: reconnects, reboots, harness that survives a disconnect
adb_protocol.py     finds or starts the adb server; adbutils' errors as device errors
adb_transport.py    adb client on adbutils: read timeouts, shell packets, file transfer
android_reports.py  parses getprop, `adb devices`, dumpsys: thermal status, temperatures, battery, screen
virtual.py          virtual phones: sandbox, adbd, /data, emulators of arm64 and HTP
scenario.py         scenario files; simulated /system, dumpsys reports, clocks, memory
scenario_player.py  scenario events: unplug, reboot, heat; slow link
recording.py        recordings of phones: archive, repetition on a virtual device, peak memory from /proc
personal_data.py    removes serial numbers, accounts, networks and the like from texts
local.py            this machine as a device, without adb
lab/                the phones of a lab and who may use them: names, health, leases and reservations
process_marks.py    kills leftover processes, found by an environment variable
"""

from quadbench.devices.addresses import Address, parse_addresses
from quadbench.devices.connections import HostedPhone, list_devices
from quadbench.devices.device import Device

__all__ = ["Address", "Device", "HostedPhone", "list_devices", "parse_addresses"]
