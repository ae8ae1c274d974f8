"""Target: device profiles -> the targets that bundles are compiled for, and the devices that run them."""
