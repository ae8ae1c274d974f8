"""Doctor: this machine, or one device -> what is there and what works, and what to do about the rest."""

from quadbench.doctor.bring_up import bring_up
from quadbench.doctor.checks import BringUp, CheckStatus, DeviceCheck
from quadbench.doctor.machine import Check, examine

__all__ = ["BringUp", "Check", "CheckStatus", "DeviceCheck", "bring_up", "examine"]
