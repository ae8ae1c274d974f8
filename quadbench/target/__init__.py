"""Target: the YAML profiles of devices, and the targets (chips and runtimes) that models are compiled for.

profile.py  device profiles: recognising phones, `local`, broken files, targets by key or address
targets.py  compile targets, target keys, chip vendors, commands and placeholders of toolchains
abi.py      ABIs of native programs: ELF machine, page size, loader, system libraries
"""
