"""For a target: a kit, a target and the compiler here -> every reason why the kit cannot run what is compiled. Pure."""

from quadbench.artifacts.kit import Kit, Role
from quadbench.kits.fitness import side_name
from quadbench.kits.versions import COMPILER, COMPILER_VERSIONS
from quadbench.target.targets import QnnTarget, Target


def target_problems(kit: Kit, target: Target, htp_arch: str | None, build: str | None) -> list[str]:
    """Return every reason why a kit cannot run what is compiled for a target on a device with that HTP, each in a sentence.

    `build` is the compiler's build of Qualcomm's SDK, None where there is no compiler.
    """
    if not isinstance(target, QnnTarget):
        return []
    if not kit.of_role(Role.PLUGIN):
        return ["it has no execution provider for Qualcomm's HTP; expected 'libonnxruntime_providers_qnn.so'"]
    sides = {library.role for library in kit.libraries if library.htp_arch == htp_arch}
    missing = [role for role in (Role.STUB, Role.SKEL) if htp_arch and role not in sides]
    compiler = compiler_problem(kit, build)
    return [
        *(f"it has no {role} for HTP {htp_arch}; expected '{side_name(htp_arch, role)}'" for role in missing),
        *([compiler] if compiler else []),
    ]


def compiler_problem(kit: Kit, build: str | None) -> str | None:
    """Say how the kit's build of Qualcomm's SDK differs from the compiler's; None where they agree or the kit has none of it."""
    expected = kit.versions.get("qnn")
    if expected is None or build == expected:
        return None
    version = COMPILER_VERSIONS.get(expected)
    known = ", ".join(f"{version} has {build}" for build, version in COMPILER_VERSIONS.items())
    install = f"pip install {COMPILER}=={version}" if version else f"no {COMPILER} with that build is known ({known})"
    other = f"the compiler here has {build}" if build else f"the compiler here, {COMPILER}, is not installed"
    return f"it has QNN build {expected}, and {other}; both must be the same: {install}"
