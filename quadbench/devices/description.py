"""Write a device profile from what a phone says of itself, for a person to read and keep."""

import re
from collections.abc import Mapping, Sequence

import yaml

from quadbench.errors import DeviceError
from quadbench.spec.spec_model import MAX_NAME_LENGTH
from quadbench.target.profile import NO_EMULATOR, DeviceProfile, Soc
from quadbench.target.targets import LiteRtTarget, OnnxRuntimeTarget

_CHIP, _MODEL = "ro.soc.model", "ro.product.model"
_BOARD = "ro.board.platform"  # for phones older than Android 12, which do not report ro.soc.model
_REPORTED = (  # no property that identifies a single phone
    "ro.soc.manufacturer", _CHIP, _BOARD, "ro.hardware", "ro.product.manufacturer", "ro.product.brand", _MODEL,
    "ro.product.device", "ro.build.version.release", "ro.build.version.sdk",
)  # fmt: skip
_MEMORY = re.compile(r"^MemTotal:\s+(\d{1,15}) kB$", re.MULTILINE)
_HEAD = """# Read it, correct what the phone does not say well, such as titles, and keep it as mine.yaml:
# quadbench run quickstart --devices ./mine.yaml@SERIAL
"""
_NOTHING_RUN = "Written from the properties of an attached phone; nothing was run on it."
_MEMORY_NOTE = "ram_mb is the memory that the kernel reports. The phone was sold with a little more."
_KNOWN_CHIP = "The targets are those of the profile {}, whose chip has the same name."
_UNKNOWN_CHIP = "No profile of quadbench has this chip, so the targets are its CPU alone; title and vendor are the phone's words."


def describe_phone(serial: str, properties: Mapping[str, str], meminfo: str, known: Sequence[DeviceProfile]) -> str:
    """Return the YAML text of a device profile that matches a phone's model and chip exactly. It has no serial number.

    `properties` are the phone's, of one line each; `meminfo` is the content of its /proc/meminfo. A chip that one of the `known`
    profiles has gets that profile's targets.

    Raises:
        DeviceError: the phone does not say its model, its chip or its memory.
    """
    chip_key = _CHIP if properties.get(_CHIP) else _BOARD
    chip, model, memory = properties.get(chip_key), properties.get(_MODEL), _MEMORY.search(meminfo)
    missing = [name for name, value in ((_MODEL, model), (f"{_CHIP} or {_BOARD}", chip), ("MemTotal", memory)) if not value]
    if chip is None or model is None or memory is None or missing:
        hint = "see what it reports: adb shell getprop; docs/adding-a-device.md says how to write a profile by hand"
        raise DeviceError(f"device '{serial}' does not report {', '.join(missing)}, so no profile can be written", hint=hint)
    twin = next((profile for profile in known if _has_chip(profile, chip_key, properties)), None)
    ram_mb = max(1, int(memory[1]) // 1024)
    cpu = OnnxRuntimeTarget(backend="onnxruntime", execution_provider="cpu")
    others = (OnnxRuntimeTarget(backend="onnxruntime", execution_provider="xnnpack"), LiteRtTarget(backend="litert"))
    emulator = {key: properties[key] for key in NO_EMULATOR if properties.get(key) == "1"}
    vendor = properties.get("ro.soc.manufacturer", "unknown").lower()
    profile = DeviceProfile(
        schema_version=1,
        name=_free_name(model, known),
        title=" ".join(filter(None, (properties.get("ro.product.brand"), model))),
        match={chip_key: _exactly(chip), _MODEL: _exactly(model), **emulator},
        soc=twin.soc.model_copy(update={"ram_mb": ram_mb}) if twin else Soc(vendor=vendor, model=chip, title=chip, ram_mb=ram_mb),
        target=twin.target if twin else cpu,
        virtual_target=cpu,
        alternatives=twin.alternatives if twin else others,
        properties={key: properties[key] for key in _REPORTED if properties.get(key)},
        notes=(_NOTHING_RUN, _KNOWN_CHIP.format(twin.name) if twin else _UNKNOWN_CHIP, _MEMORY_NOTE),
    )
    content = profile.model_dump(mode="json", exclude_defaults=True)
    return _HEAD + yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=120)


def _has_chip(profile: DeviceProfile, key: str, properties: Mapping[str, str]) -> bool:
    """Return whether the pattern for the chip alone, in a profile's `match`, fits the phone's properties."""
    return key in profile.match and key not in profile.mismatches(properties)


def _exactly(value: str) -> str:
    """Return a pattern of `match` for this value alone. The separator of patterns, `|`, becomes `?`; spaces at the ends count."""
    return re.sub(r"([*?[]|^\s|\s\Z)", r"[\1]", value).replace("|", "?")


def _free_name(model: str, known: Sequence[DeviceProfile]) -> str:
    """Return a profile's name made of a phone's model, such as `sm-s931b`, that no known profile has."""
    plain = re.sub(r"[^a-z0-9]+", "-", model.lower())[: MAX_NAME_LENGTH - 4].strip("-") or "phone"
    taken = {profile.name for profile in known}
    return next(name for name in (plain, *(f"{plain}-{number}" for number in range(2, 1000))) if name not in taken)
