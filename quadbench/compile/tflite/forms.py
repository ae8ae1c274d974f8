"""Forms: an operator's name -> the function that writes it to a .tflite file."""

from collections.abc import Callable

from quadbench.compile.tflite import convolution, elementwise, linear, moving, norms
from quadbench.compile.tflite.graph import GROUP_NORM, REQUANTIZE, Operation
from quadbench.compile.tflite.writer import Writer

Form = Callable[[Writer, Operation], None]

FORMS: dict[str, Form] = {
    "Add": elementwise.add,
    "Sub": elementwise.sub,
    "Mul": elementwise.mul,
    "Div": elementwise.div,
    "Sigmoid": elementwise.sigmoid,
    "Gelu": elementwise.gelu,
    "Softmax": elementwise.softmax,
    REQUANTIZE: elementwise.requantize,
    "Conv": convolution.conv,
    "Gemm": linear.gemm,
    "MatMul": linear.matmul,
    "Gather": linear.gather,
    "LayerNormalization": norms.layer_norm,
    GROUP_NORM: norms.group_norm,
    "ReduceMean": norms.mean,
    "Reshape": moving.reshape,
    "Squeeze": moving.reshape,
    "Unsqueeze": moving.reshape,
    "Flatten": moving.reshape,
    "Identity": moving.identity,
    "Transpose": moving.transpose,
    "Concat": moving.concat,
    "Split": moving.split,
    "Slice": moving.slice_,
    "Resize": moving.resize,
}
