"""Device profile: a device is recognised by its properties, and profiles are found by name."""

import json
from pathlib import Path

import pytest
from support.schemas import poorly_described
from support.sentences import raising, reads, says

from quadbench.cli import main
from quadbench.errors import SpecError, UnknownNameError, UserError
from quadbench.target.profile import PROFILES_VARIABLE, DeviceProfile, broken_profiles, load_profile, load_profiles, local_profile
from quadbench.target.targets import OnnxRuntimeTarget, QnnTarget, target_key

PROFILE = """
schema_version: 1
name: {name}
title: Bench phone
match: {{ro.soc.model: "XY[12]*", ro.product.brand: bench}}
soc: {{vendor: acme, model: XY1, title: Acme One, ram_mb: 4096, htp_arch: v79}}
target: {{backend: qnn, htp_arch: v79, soc_model: 69}}
virtual_target: {{backend: onnxruntime, execution_provider: cpu}}
properties: {{ro.soc.model: {soc}}}
"""


def write(folder: Path, name: str = "bench", soc: str = "XY1") -> Path:
    path = folder / f"{name}.yaml"
    path.write_text(PROFILE.format(name=name, soc=soc))
    return path


def test_the_phones_of_this_project_have_profiles():
    assert {"s25", "s25-exynos", "tabs11"} <= {profile.name for profile in load_profiles()}


@pytest.mark.parametrize(
    ("soc", "model", "expected"),
    [
        ("SM8750", "SM-S931B", ["s25"]),
        ("SM8750", "SM-S938U1", ["s25"]),
        ("s5e9955", "SM-S936B", ["s25-exynos"]),
        ("MT6991", "SM-X736B", ["tabs11"]),
        ("SM8750", "SM-F766B", []),  # a Galaxy Z Flip7, whose chip is another
        ("MT6991", "PKC110", []),
        ("sm8750", "SM-S931B", []),
    ],
)
def test_a_device_is_recognised_by_chip_and_model(soc, model, expected):
    properties = {"ro.soc.model": soc, "ro.product.model": model, "ro.board.platform": "any"}
    assert [profile.name for profile in load_profiles() if profile.matches(properties)] == expected


def test_a_device_without_the_property_is_not_recognised():
    assert not load_profile("s25").matches({"ro.soc.model": "SM8750"})


def test_a_virtual_device_is_recognised_by_its_own_profile_alone():
    for profile in load_profiles():
        assert [other.name for other in load_profiles() if other.matches(profile.virtual_properties())] == [profile.name]


def test_plain_patterns_are_properties_of_the_virtual_device(tmp_path):
    profile = load_profile(write(tmp_path))
    assert profile.virtual_properties() == {"ro.soc.model": "XY1", "ro.product.brand": "bench"}


def test_a_virtual_device_must_fit_its_own_patterns(tmp_path):
    with raising(SpecError, "9: properties.ro.soc.model", "XY[12]*", "XY3"):
        load_profile(write(tmp_path, soc="XY3"))


def test_properties_that_patterns_need_are_missed(tmp_path):
    path = write(tmp_path)
    path.write_text(path.read_text().replace("properties:", "#"))
    with raising(SpecError, "properties.ro.soc.model", "nothing"):
        load_profile(path)


def test_profiles_of_a_folder_of_your_own_join_in(tmp_path, monkeypatch):
    write(tmp_path)
    monkeypatch.setenv(PROFILES_VARIABLE, str(tmp_path))
    assert load_profile("bench").title == "Bench phone"
    assert load_profile("s25").title == "Galaxy S25"


@pytest.mark.parametrize("name", ["s25", "local"])
def test_of_files_with_one_name_neither_is_taken_for_it(tmp_path, monkeypatch, name):
    write(tmp_path, name=name)
    monkeypatch.setenv(PROFILES_VARIABLE, str(tmp_path))
    with raising(UserError, name):
        load_profile(name)
    assert name not in {profile.name for profile in load_profiles()}
    assert load_profile("tabs11").title == "Galaxy Tab S11"


@pytest.mark.parametrize("content", ["{", "", "schema_version: 9\n", "name: [\x00", "schema_version: 1\nname: bench\n"])
def test_a_broken_profile_costs_only_itself(tmp_path, monkeypatch, content):
    known = load_profiles()
    (tmp_path / "bench.yaml").write_text(content)
    monkeypatch.setenv(PROFILES_VARIABLE, str(tmp_path))
    assert load_profiles() == known
    (broken,) = broken_profiles()
    assert broken.name == "bench"
    with raising(SpecError, "bench.yaml"):
        load_profile("bench")


def test_a_broken_profile_is_named_where_devices_targets_and_checks_are_listed(tmp_path, monkeypatch, capsys):
    (tmp_path / "bench.yaml").write_text("schema_version: 9\n")
    monkeypatch.setenv(PROFILES_VARIABLE, str(tmp_path))
    assert main(["targets"]) == 0
    says(capsys.readouterr().err, f"{tmp_path}/bench.yaml:1: schema_version", 9, 1)
    assert main(["devices", "--json"]) == 0
    told = capsys.readouterr()
    says(told.err, "bench.yaml:1: schema_version", 9, 1)
    assert "virtual:s25" in {row.get("address") for row in json.loads(told.out)}
    main(["doctor", "--json"])
    reads(
        [check["hint"] for check in json.loads(capsys.readouterr().out) if check["name"] == "device profile bench"],
        f"{tmp_path}/bench.yaml:1: schema_version",
        9,
        1,
    )


def test_an_architecture_that_is_none_is_told_in_words(tmp_path):
    path = write(tmp_path)
    path.write_text(path.read_text().replace("htp_arch: v79", "htp_arch: hexagon"))
    with pytest.raises(SpecError) as refused:
        load_profile(path)
    says(str(refused.value), "target.htp_arch", "v73", "v75", "v79", "v81", "hexagon")


@pytest.mark.parametrize(
    ("target", "chip", "reason"),
    [
        ("{backend: qnn, htp_arch: v79, soc_model: 69}", "", ("soc.htp_arch", "v79")),
        (
            "{backend: qnn, htp_arch: v79, soc_model: 69}",
            ", htp_arch: v75",
            ("soc.htp_arch", "v79", "v75"),
        ),
        ("{backend: litert, soc: SM8750}", "", ("soc.htp_arch", "SM8750", "v79")),
    ],
)
def test_a_target_for_another_chip_than_the_devices_is_refused_at_its_line(tmp_path, target, chip, reason):
    path = write(tmp_path)
    text = path.read_text().replace(", htp_arch: v79}", chip + "}")
    path.write_text(
        text.replace("{backend: qnn, htp_arch: v79, soc_model: 69}", "{backend: litert}") + f"alternatives: [{target}]\n"
    )
    with pytest.raises(SpecError) as refused:
        load_profile(path)
    reads(refused.value.problems, f"{path}:10: alternatives[0]", *reason)


def test_a_folder_that_is_missing_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv(PROFILES_VARIABLE, str(tmp_path / "absent"))
    with raising(UserError):
        load_profiles()


def test_an_unknown_profile_lists_the_known_ones():
    with raising(UnknownNameError, "s52", "s25-exynos", "tabs11"):
        load_profile("s52")


def test_this_machine_is_described_and_recognises_nothing():
    profile = local_profile()
    assert profile.name == "local"
    assert profile.soc.ram_mb > 0
    assert not profile.matches({})
    assert not profile.matches({"ro.soc.model": "SM8750"})


def test_a_target_s_key_says_what_graphs_are_made_for():
    assert target_key(OnnxRuntimeTarget(backend="onnxruntime", execution_provider="cpu"), "x86_64") == "onnxruntime-cpu-x86_64"
    assert target_key(QnnTarget(backend="qnn", htp_arch="v79", soc_model=69), "aarch64") == "qnn-v79-69"


def test_every_key_of_a_profile_is_described_in_a_sentence_that_names_the_default_of_a_number():
    assert poorly_described(DeviceProfile.model_json_schema()) == []
