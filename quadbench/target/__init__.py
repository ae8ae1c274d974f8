"""Target: the YAML profiles of devices, and the targets (chips and runtimes) that models are compiled for."""
