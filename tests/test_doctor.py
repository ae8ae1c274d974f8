"""Doctor: what can be compiled for here, and what phones would need."""

import platform
from pathlib import Path

import pytest
from support.bench_phone import with_toolchain
from support.sentences import reads, says

from quadbench.cli import main
from quadbench.doctor.machine import Dependency, examine
from quadbench.errors import MissingDependencyError, extra_hint
from quadbench.harness.program import NDK_VARIABLE
from quadbench.target.profile import PROFILES_VARIABLE

PROFILE = with_toolchain('[cp, "{input}", model.bin]', version="{command: [echo, '{ACME_SDK}'], pattern: 'acme-(\\d+)'}")


@pytest.fixture(autouse=True)
def own_profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bench.yaml").write_text(PROFILE)
    monkeypatch.setenv(PROFILES_VARIABLE, str(tmp_path))
    monkeypatch.delenv("ACME_SDK", raising=False)


def check(name: str) -> Dependency:
    return {check.name: check for check in examine()}[name]


def test_an_absent_toolchain_is_named_with_what_it_lacks_and_fails_nothing() -> None:
    result = check("toolchain-acme")
    assert (result.is_ok, result.is_required) == (False, False)
    reads(result.purpose)
    reads(result.found, "ACME_SDK")


def test_an_installed_toolchain_is_shown_with_its_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACME_SDK", "/opt/acme-7")
    result = check("toolchain-acme")
    assert (result.is_ok, result.found, result.hint) == (True, "7", None)


def test_a_toolchain_of_another_version_says_what_was_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACME_SDK", "/opt/other")
    says(str(check("toolchain-acme").found), "/opt/other")


def test_the_answer_is_a_line_per_purpose_and_all_of_it_on_demand(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    short = capsys.readouterr().out.splitlines()
    assert len(short) <= 20
    assert [line.split()[0] for line in short[:-1]] == ["ok" if " ok " in f" {line[:4]} " else "absent" for line in short[:-1]]
    assert main(["doctor", "--all"]) == 0
    whole = capsys.readouterr().out
    assert all(check.name in whole for check in examine())
    assert sum(check.name in "\n".join(short) for check in examine()) < len(examine())


def test_a_missing_package_is_answered_with_one_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("quadbench.doctor.machine.package_version", lambda _: None)
    assert main(["doctor"]) == MissingDependencyError.exit_code
    lines = capsys.readouterr().out.splitlines()
    assert f"missing  building bundles: {extra_hint('quad')}" in lines
    assert f"absent   a farm of hosts: {extra_hint('farm')}" in lines


def test_an_ndk_is_known_by_its_own_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NDK_VARIABLE, str(tmp_path))
    assert not check("Android NDK").is_ok
    (tmp_path / "source.properties").write_text("Pkg.Desc = Android NDK\nPkg.Revision = 27.2.12479018\n")
    assert check("Android NDK").found == f"27.2.12479018 in {tmp_path}"


def test_what_virtual_phones_for_arm64_lack_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if platform.machine() != "x86_64":
        pytest.skip("an arm64 machine needs nothing")
    (tmp_path / "qemu-aarch64-static").touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setenv("QEMU_LD_PREFIX", str(tmp_path))
    result = check("qemu-aarch64-static")
    assert (result.is_ok, result.is_required) == (False, False)
    reads(result.purpose, "arm64")
    says(str(result.hint), "libc6-arm64-cross")
