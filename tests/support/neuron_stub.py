"""Neuron stub: a folder -> MediaTek's SDK as its package brings it, with a library that takes all graphs and compiles none."""

import subprocess
from pathlib import Path

PACKAGE, MODULE = "ai-edge-litert-sdk-mediatek", "ai_edge_litert_sdk_mediatek"
LIBRARY = "libneuronusdk_adapter.mtk.so"
_FOLDER = "data/v8_0_10/host/lib"
_INIT = f"""\
from pathlib import Path

def path_to_sdk_libs(version="v8"):
    return Path(__file__).parent / "{_FOLDER}"
"""
_FINE = """
    NeuronModel_free
    NeuronModel_addOperand
    NeuronModel_setOperandValue
    NeuronModel_setOperandSymmPerChannelQuantParams
    NeuronModel_setOperandPerChannelQuantParams
    NeuronModel_addOperation
    NeuronModel_identifyInputsAndOutputs
    NeuronModel_setName
    NeuronModel_relaxComputationFloat32toFloat16
    NeuronModel_restoreFromCompiledNetwork
    NeuronModel_finish
    NeuronCompilation_free
    NeuronCompilation_setPriority
    NeuronCompilation_setPreference
    NeuronCompilation_setOptimizationString
    NeuronExecution_create
    NeuronCompilation_setOptimizationHint
    NeuronCompilation_setL1MemorySizeKb
    NeuronExecution_free
    NeuronExecution_compute
    NeuronExecution_setInputFromMemory
    NeuronExecution_setOutputFromMemory
    NeuronExecution_setBoostHint
    NeuronExecution_setConfig
    NeuronMemory_createFromFd
    NeuronMemory_createFromAHardwareBuffer
    NeuronMemory_free
    Neuron_getL1MemorySizeKb
    NeuronCompilation_getInputPaddedDimensions
    NeuronCompilation_getInputPaddedSize
    NeuronCompilation_getOutputPaddedSize
    NeuronCompilation_getOutputPaddedDimensions
"""
_SOURCE = """
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
static int thing;
static const char NETWORK[] = "a network of the stub";
int NeuronModel_create(void **model) { *model = &thing; return 0; }
int NeuronModel_getExtensionOperandType(void *m, const char *e, uint16_t code, int32_t *type) { *type = code; return 0; }
int NeuronModel_getExtensionOperationType(void *m, const char *e, uint16_t code, int32_t *type) { *type = code; return 0; }
int NeuronCompilation_create(void *m, void **compilation) { *compilation = &thing; return 0; }
int NeuronCompilation_createWithOptions(void *m, void **compilation, const char *o) { *compilation = &thing; return 0; }
int NeuronCompilation_finish(void *c) { return FINISH; }
int NeuronCompilation_getSupportedOperations(void *c, bool *ops, uint32_t count) { memset(ops, 1, count); return 0; }
int NeuronCompilation_getCompiledNetworkSize(void *c, size_t *size) { *size = sizeof NETWORK; return 0; }
int NeuronCompilation_storeCompiledNetwork(void *c, void *buffer, size_t size) { memcpy(buffer, NETWORK, size); return 0; }
int Neuron_getVersion(uint8_t *version) { version[0] = 8; version[1] = 0; version[2] = 10; return 0; }
"""


def write_sdk(folder: Path, *, version: str, is_empty: bool = False, finish: int = 0) -> None:
    """Write package and metadata below a folder of the Python path. `finish` is the status with which every compilation ends."""
    package, metadata = folder / MODULE, folder / f"{MODULE}-{version}.dist-info"
    package.mkdir(parents=True)
    metadata.mkdir()
    (package / "__init__.py").write_text(_INIT)
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {PACKAGE}\nVersion: {version}\n")
    if is_empty:
        return
    (package / _FOLDER).mkdir(parents=True)
    source = _SOURCE.replace("FINISH", str(finish)) + "".join(f"int {name}(void) {{ return 0; }}\n" for name in _FINE.split())
    command = ["cc", "-shared", "-fPIC", "-w", "-x", "c", "-", "-o", str(package / _FOLDER / LIBRARY)]
    subprocess.run(command, input=source.encode(), check=True)
