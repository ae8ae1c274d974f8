"""Availability: the parts that a target needs on this machine are looked for without asking anything outside it."""

import onnxruntime
from support.sentences import reads

from quadbench.compile.availability import availability, package_availability
from quadbench.target.targets import OnnxRuntimeTarget


def test_onnx_runtime_is_ready_wherever_quadbench_is_installed():
    available = availability(OnnxRuntimeTarget(backend="onnxruntime", execution_provider="cpu"))
    assert available.is_ready
    assert available.version == onnxruntime.__version__


def test_a_package_that_is_absent_is_named_with_what_installs_it():
    available = package_availability("no_such_package", hint="pip install 'quadbench[none]'")
    assert not available.is_ready
    assert available.hint == "pip install 'quadbench[none]'"
    reads(available.missing)
