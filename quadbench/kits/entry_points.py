"""Entry points: what a library is there for -> the functions that are looked up in it by name once it is opened."""

from quadbench.artifacts.kit import Role

_OF_LITERT = {  # by the harness, in litert.cpp
    "LiteRtCreateEnvironment", "LiteRtDestroyEnvironment", "LiteRtCreateModelFromFile", "LiteRtDestroyModel",
    "LiteRtCreateOptions", "LiteRtDestroyOptions", "LiteRtSetOptionsHardwareAccelerators", "LiteRtCreateOpaqueOptions",
    "LiteRtAddOpaqueOptions", "LiteRtCreateCompiledModel", "LiteRtDestroyCompiledModel", "LiteRtGetModelSignature",
    "LiteRtGetNumSignatureInputs", "LiteRtGetSignatureInputName", "LiteRtGetSignatureInputTensorByIndex",
    "LiteRtGetNumSignatureOutputs", "LiteRtGetSignatureOutputName", "LiteRtGetSignatureOutputTensorByIndex",
    "LiteRtGetRankedTensorType", "LiteRtCreateTensorBufferFromHostMemory", "LiteRtDestroyTensorBuffer",
    "LiteRtRunCompiledModel",
}  # fmt: skip
ENTRY_POINTS: dict[Role, frozenset[str]] = {
    Role.LITERT: frozenset(_OF_LITERT),
    Role.DISPATCH: frozenset({"LiteRtDispatchGetApi"}),  # by LiteRT
}
