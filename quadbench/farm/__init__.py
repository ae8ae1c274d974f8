"""The farm: devices that many processes and hosts share -> who may use which."""
