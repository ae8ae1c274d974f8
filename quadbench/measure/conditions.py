"""Conditions: an installation and what its harness said -> the versions and the settings with which a launch ran."""

from importlib.metadata import version

from quadbench.artifacts import LIBRARY_PREFIX, Variant
from quadbench.harness.heard import Heard
from quadbench.harness.installation import Installation
from quadbench.recipe import Runtime


def versions_of(installation: Installation, heard: Heard) -> dict[str, str]:
    """Return everything that may make one figure differ from another's: tools by the stage that used them."""
    versions = {"quadbench": version("quadbench")}
    versions |= {f"quad.{tool}": text for tool, text in installation.bundle.artifact.tool_versions.items()}
    versions |= {f"compile.{tool}": text for tool, text in installation.compiled.artifact.tool_versions.items()}
    versions |= installation.kit.versions if installation.kit else {}
    if heard.header is not None:
        versions |= {
            "harness": heard.header.harness_version,
            "harness.commit": heard.header.commit,
            "harness.build_type": heard.header.build_type,
            "runtime": heard.header.runtime_version,
        }
    for library in heard.libraries.values():
        name = f"{LIBRARY_PREFIX}{heard.expected.libraries.name_of(library)}"
        if name in versions:  # of the same name in another folder
            name = f"{LIBRARY_PREFIX}{library.path}"
        versions[name] = f"{library.path}, build id {library.build_id or 'none'}"
    return versions


def settings_of(installation: Installation, variant: Variant, runtime: Runtime) -> dict[str, str]:
    """Return every option with which the graphs ran; what was left to the device is `any`."""
    values, provider = runtime.model_dump(), installation.execution_provider
    used = provider.settings if provider and variant.is_quantized else {"provider": "CPUExecutionProvider"}
    if installation.litert and variant.is_quantized:
        used = {"engine": "litert"}
    texts = {key: ",".join(map(str, value)) if isinstance(value, tuple) else value for key, value in values.items()}
    return used | {f"runtime.{key}": "any" if value in (None, "") else str(value) for key, value in texts.items()}
