"""Bench phone: the device profile that tests of toolchains write, alone or with Acme's toolchain."""

PHONE = """\
schema_version: 1
name: bench
title: Bench phone
match: {}
soc: {vendor: acme, model: XY1, title: Acme One, ram_mb: 4096}
target: {backend: onnxruntime, execution_provider: cpu}
virtual_target: {backend: onnxruntime, execution_provider: cpu}
"""
_TOOLCHAIN = """\
alternatives:
  - backend: toolchain
    name: acme
    environment: [ACME_SDK]
    commands:
      - COMMANDS
    product: model.bin
    version: VERSION
    timeout_s: 60
    install: ask Acme
"""


def with_toolchain(*commands: str, version: str) -> str:
    """Return the phone with a toolchain of these commands; each, like the version, is YAML on one line."""
    return PHONE + _TOOLCHAIN.replace("COMMANDS", "\n      - ".join(commands)).replace("VERSION", version)
