"""Profiles of phones that people own: every real phone matches its own profile, and no other phone is taken for it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from quadbench.devices.android_reports import parse_getprop
from quadbench.target.profile import load_profiles
from quadbench.target.targets import LiteRtTarget, QnnTarget

PROFILES = load_profiles()
EXCERPTS = Path(__file__).parent / "data/getprop/excerpts.txt"
RECOGNISED = {
    "OneUI 6.1 Android 14 Galaxy S24": "s24",
    "OneUI 8.0 Android 16 Galaxy Z Fold7": "z-fold7",
    "HyperOS 2.0214.0 Android 15 Xiaomi 15": "xiaomi15",
    "HyperOS 2.0.214.0 Android 15 Xiaomi 15 Pro": "xiaomi15",
    "HyperOS 3.0.16.0 Android 16 Xiaomi 17 Pro Max": "xiaomi17",
}

# Model numbers and chips as real phones report them. Chips are those of public property files (AWS Device Farm's phones, in
# github.com/ExperimentalMachines/execubench, and excerpts.txt) or, for the rest, of the sources that the profiles' notes name.
OWNED = {
    "s24": ("SM8650", "SM-S921U SM-S921U1 SM-S921W SM-S921Q SM-S9210 SM-S926U SM-S926U1 SM-S926W SM-S9260 SM-S928B SM-S928N"
            " SM-S928U SM-S928U1 SM-S928W SM-S928Q SM-S9280 SC-51E SC-52E SCG25 SCG26"),
    "s24-exynos": ("s5e9945", "SM-S921B SM-S921N SM-S926B SM-S926N"),
    "s24-fe": ("s5e9945", "SM-S721B SM-S721N SM-S721U SM-S721U1 SM-S721W SM-S721Q SM-S7210 SCG30"),
    "s25": ("SM8750", "SM-S931B SM-S931N SM-S931U SM-S931U1 SM-S931W SM-S931Q SM-S931Z SM-S9310 SM-S936B SM-S936N SM-S936U"
            " SM-S936U1 SM-S936W SM-S9360 SM-S938B SM-S938N SM-S938U SM-S938U1 SM-S938W SM-S938Q SM-S938Z SM-S9380"
            " SC-51F SC-52F SCG31 SCG32"),
    "s25-edge": ("SM8750", "SM-S937B SM-S937N SM-S937U SM-S937U1 SM-S937W SM-S9370"),
    "s25-fe": ("s5e9945", "SM-S731B SM-S731N SM-S731U SM-S731U1 SM-S731W"),
    "s25-exynos": ("s5e9955", "SM-S931B SM-S936B"),
    "z-fold7": ("SM8750", "SM-F966B SM-F966N SM-F966U SM-F966U1 SM-F966W SM-F966Q SM-F966Z SM-F9660 SC-56F SCG34"),
    "s26": ("SM8850", "SM-S942U SM-S942U1 SM-S942W SM-S9420 SM-S942Q SM-S942Z SM-S942C SM-S947U SM-S947U1 SM-S947W SM-S9470"
            " SM-S948B SM-S948N SM-S948U SM-S948U1 SM-S948W SM-S9480 SM-S948Q SC-51G SC-52G SC-53G SCG36 SCG37 SCG38"),
    "s26-exynos": ("s5e9965", "SM-S942B SM-S942N SM-S947B SM-S947N"),
    "tabs10": ("MT6989", "SM-X820 SM-X826B SM-X826N SM-X828U SM-X920 SM-X926B SM-X926C"),
    "tabs10-fe": ("s5e8855", "SM-X520 SM-X526B SM-X526C SM-X526N SM-X620 SM-X626B SM-X626C"),
    "tabs10-lite": ("s5e8835", "SM-X400 SM-X406B"),
    "tabs11": ("MT6991", "SM-X730 SM-X736B SM-X736C SM-X736N SM-X930 SM-X936B SM-X936C"),
    "xiaomi15": ("SM8750", "24129PN74C 24129PN74G 24129PN74I 2410DPN6CC 25010PN30G 25010PN30I 25010PN30C 25019PNF3C"),
    "xiaomi17": ("SM8850", "25113PN0EC 25113PN0EG 25113PN0EI 25098PN5AC 2509FPN0BC 2512BPNDAC 2512BPNDAG 2512BPNDAI 25128PNA1C"),
    "oneplus13": ("SM8750", "PJZ110 CPH2649 CPH2653 CPH2655"),
    "oneplus15": ("SM8850", "PLK110 CPH2745 CPH2747 CPH2749"),
}  # fmt: skip
PIXELS = {
    "pixel9": ("Tensor G4", ("Pixel 9", "Pixel 9 Pro", "Pixel 9 Pro XL", "Pixel 9 Pro Fold")),
    "pixel9a": ("Tensor G4", ("Pixel 9a",)),
    "pixel10": ("Tensor G5", ("Pixel 10", "Pixel 10 Pro", "Pixel 10 Pro XL", "Pixel 10 Pro Fold")),
}
FAMILIES = {name: (chip, tuple(models.split())) for name, (chip, models) in OWNED.items()} | PIXELS

# Phones that look like one with a profile: another model with its chip, its model with another chip, or a name that begins alike.
OTHERS = [
    ("SM8650", "SM-F956B"),  # Galaxy Z Fold6
    ("SM8650", "SM-S921B"),  # sold with Exynos alone
    ("SM8650", "SM-S926N"),
    ("s5e9945", "SM-S928B"),  # the S24 Ultra has Snapdragon everywhere
    ("s5e9945", "SM-S921U"),
    ("SM8650", "SM-S721B"),
    ("SM8550", "SM-S918B"),
    ("SM8750", "SM-S921B"),
    ("SM8750", "SM-S731B"),
    ("SM8750", "SM-S931"),
    ("SM8750", "SM-S931B2"),
    ("SM8750", "SM-S931BE"),
    ("SM8750", "SM-S93100"),
    ("SM8750", "SM-S931U2"),
    ("SM8750", "SM-S935B"),
    ("SM8750", "SM-S939B"),
    ("SM8750P", "SM-S931B"),
    ("SM8735", "SM-S931B"),
    ("SM87500", "SM-S931B"),
    ("SM8750", "sm-s931b"),
    ("", "SM-S931B"),
    ("SM8750", ""),
    ("SM8750", "SM-F766B"),  # Galaxy Z Flip7
    ("SM8750", "SM-F968N"),  # Galaxy Z TriFold
    ("SM8750", "SM-F9660X"),
    ("SM8750", "SC-55F"),  # Galaxy Z Flip7
    ("s5e9965", "SM-S948B"),
    ("SM8850", "SM-S942B"),
    ("SM8845", "SM-S942U"),
    ("s5e9955", "SM-F766B"),  # Galaxy Z Flip7, the same Exynos
    ("MT6989", "SM-X730"),
    ("MT6991", "SM-X820"),
    ("MT6989", "2407FPN8EG"),  # Xiaomi 14T Pro
    ("MT6991", "2506BPN68G"),  # Xiaomi 15T Pro
    ("MT6899", "25069PTEBG"),  # Xiaomi 15T
    ("XRING_O1", "25042PN24C"),  # Xiaomi 15S Pro
    ("s5e8855", "SM-A566B"),  # Galaxy A56
    ("s5e8835", "SM-A546B"),  # Galaxy A54
    ("SM8650", "23127PN0CC"),  # Xiaomi 14
    ("SM8750", "24129PN74X"),
    ("SM8750", "24129PN74CX"),
    ("SM8750", "25113PN0EC"),
    ("SM8850", "24129PN74C"),
    ("SM8850", "2605EPN8EC"),  # Xiaomi 17 Max
    ("SM8850", "25102RKBEC"),  # a Redmi phone
    ("SM8750", "24117RK2CC"),  # Redmi K80 Pro
    ("SM8750", "PKX110"),  # OnePlus 13T
    ("SM8750", "CPH2723"),  # OnePlus 13s
    ("SM8650", "CPH2645"),  # OnePlus 13R
    ("SM8750", "PKR110"),  # OnePlus Ace 5 Pro
    ("SM8850", "PLZ110"),  # OnePlus 15T
    ("SM8845", "CPH2769"),  # OnePlus 15R
    ("SM8850", "CPH27470"),
    ("Tensor G4", "Pixel 10a"),
    ("Tensor G5", "Pixel 9"),
    ("Tensor G4", "Pixel 10"),
    ("Tensor G3", "Pixel 9"),
    ("Tensor G4", "Pixel 9 Pro XL 2"),
    ("Tensor", "Pixel 9"),
    ("Tensor G6", "Pixel 11"),
]


def phones() -> Iterator[tuple[str, dict[str, str]]]:
    """Yield the name and the properties of each public dump."""
    for part in EXCERPTS.read_text(encoding="utf-8").split("# ")[1:]:
        name, _, properties = part.partition("\n")
        yield name, parse_getprop(properties)


def matching(properties: dict[str, str]) -> list[str]:
    return [profile.name for profile in PROFILES if profile.matches(properties)]


def test_of_165_public_property_files_each_is_taken_for_its_own_phone_or_for_none() -> None:
    found = {name: matching(properties) for name, properties in phones()}
    assert len(found) == 165
    assert {name: profiles for name, profiles in found.items() if profiles} == {name: [own] for name, own in RECOGNISED.items()}


@pytest.mark.parametrize("name", FAMILIES)
def test_every_model_of_a_family_is_recognised_as_it_alone(name: str) -> None:
    chip, models = FAMILIES[name]
    for model in models:
        assert matching({"ro.soc.model": chip, "ro.product.model": model}) == [name], model


def test_every_profile_has_models_that_were_sold() -> None:
    assert {profile.name for profile in PROFILES} == FAMILIES.keys()


@pytest.mark.parametrize("chip", sorted({chip for chip, _ in FAMILIES.values()}))
def test_a_model_with_another_phone_s_chip_is_that_family_s_or_nobody_s(chip: str) -> None:
    for own_chip, models in FAMILIES.values():
        for model in models:
            expected = [name for name, (of, sold) in FAMILIES.items() if of == chip and model in sold]
            found = matching({"ro.soc.model": chip, "ro.product.model": model})
            assert found == expected or (own_chip != chip and found == ["s25-exynos"]), model  # its models are a guess


@pytest.mark.parametrize(("chip", "model"), OTHERS)
def test_a_phone_that_looks_like_another_is_not_taken_for_it(chip: str, model: str) -> None:
    assert matching({"ro.soc.model": chip, "ro.product.model": model, "ro.board.platform": "sun"}) == []


@pytest.mark.parametrize("told", ["ro.boot.qemu", "ro.kernel.qemu"])
def test_an_emulator_that_claims_to_be_a_galaxy_s25_is_not_taken_for_one(told: str) -> None:
    claimed = {"ro.soc.model": "SM8750", "ro.product.model": "SM-S931B"}
    assert [matching({**claimed, told: value}) for value in ("1", "0", "")] == [[], ["s25"], ["s25"]]


@pytest.mark.parametrize(("chip", "model", "name"), [("MT6991Z/TCZA", "SM-X730", "tabs11"), ("SM8750-AC", "SM-S938B", "s25")])
def test_a_chip_s_longer_name_is_recognised(chip: str, model: str, name: str) -> None:
    assert matching({"ro.soc.model": chip, "ro.product.model": model}) == [name]


def test_profiles_of_one_chip_say_the_same_of_it() -> None:
    told: dict[str, set[object]] = {}
    for profile in PROFILES:
        htp = [target for target in profile.alternatives if isinstance(target, QnnTarget)]
        litert = [target.soc for target in profile.alternatives if isinstance(target, LiteRtTarget)]
        platform = profile.properties.get("ro.board.platform")
        said = (profile.soc.vendor, profile.soc.htp_arch, tuple(htp), tuple(litert), platform, profile.target)
        told.setdefault(profile.soc.model, set()).add(said)
    assert {chip: len(said) for chip, said in told.items() if len(said) > 1} == {}


def test_every_profile_says_where_its_facts_are_from() -> None:
    for profile in PROFILES:
        notes = " ".join(profile.notes)
        assert "Never run on the hardware" in notes, profile.name
        if profile.name != "s25-exynos":
            assert "github.com/" in notes, profile.name


def test_a_profile_claims_a_phone_at_ai_hub_only_where_its_list_has_one() -> None:
    listed = yaml.safe_load((Path(__file__).parent / "data/ai_hub/devices.yaml").read_text())["devices"]
    for profile in PROFILES:
        if profile.hosted_target is not None:
            name = profile.hosted_target.device.removesuffix(" (Family)")
            assert listed[name].split("-")[0] == profile.soc.model.lower(), profile.name
