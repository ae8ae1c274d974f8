"""Precision: a recipe's `precision` -> the bits of weights, activations and LoRA inputs of the U-Net."""

from typing import Annotated, Any, ClassVar, Literal, TypeAlias, assert_never

from pydantic import AfterValidator, BeforeValidator, Field

from quadbench.errors import shown
from quadbench.spec import Spec
from quadbench.spec.spec_model import TextLike

FLOAT_LABEL = "w8a32"  # 8-bit weights, 32-bit float activations


class W8A16(Spec):
    """Activations of the U-Net, all in 16 bits."""

    scheme: Literal["w8a16"]
    """Chooses 16 bits for all activations."""
    int8_percent: ClassVar[int] = 0


class W8A8(Spec):
    """Activations of the U-Net, all in 8 bits."""

    scheme: Literal["w8a8"]
    """Chooses 8 bits for all activations."""
    int8_percent: ClassVar[int] = 100


class Mixed(Spec):
    """Layers of the U-Net, some with activations in 8 bits and the others in 16; those take 8 whose rounding costs least."""

    scheme: Literal["mixed"]
    """Chooses W8A8 for layers with a share of the parameters and W8A16 for the others."""
    int8_percent: int = Field(ge=0, le=100, examples=["30"])
    """This share of the U-Net's parameters runs in W8A8, in percent from 0, which is w8a16, to 100, which is w8a8."""


class FloatActivations(Spec):
    """Activations in float, of the U-Net, text encoder and VAE alike: a CPU computes them so in any case, an NPU cannot."""

    scheme: Annotated[Literal["w8a32", "float"], AfterValidator(lambda _: FLOAT_LABEL)]
    """Chooses float for all activations; weights and LoRA inputs stay integers. It is for ONNX Runtime's CPU alone.
    `float` is the same as `w8a32`."""


_LABEL = TextLike(
    pattern="(w8a16|w8a8|w8a32|float|mixed-(100|[1-9]?[0-9]))",
    expected="w8a16, w8a8, w8a32, or mixed-N with N percent of the parameters in 8 bits, as mixed-30",
)


def _in_full(given: Any) -> Any:
    """Return activations that are given in one word, as `w8a16` or `mixed-30`, as keys and values; anything else as it is."""
    if not isinstance(given, str):
        return given
    if not _LABEL.fits(given):
        raise ValueError(f"expected {_LABEL.expected}, found text {shown(given)}")
    scheme, _, share = given.partition("-")
    return {"scheme": scheme, "int8_percent": int(share)} if share else {"scheme": scheme}


_Activations: TypeAlias = Annotated[W8A16 | W8A8 | Mixed | FloatActivations, Field(discriminator="scheme")]


class Precision(Spec):
    """The bits of everything in the U-Net."""

    weights: Literal["int8"]
    """The base model's weights have 8 bits and a scale for each output channel."""
    activations: Annotated[
        _Activations,
        BeforeValidator(_in_full, json_schema_input_type=_Activations | Annotated[str, _LABEL]),
        Field(examples=["w8a16"]),
    ]
    """The activations have the bits of one of the schemes w8a16, w8a8 and mixed, or stay float, which is w8a32. One word is
    enough: `w8a16`, `w8a8`, `w8a32`, `mixed-30`."""
    lora: Literal["int16", "int8"]
    """The LoRA inputs have 16 or 8 bits, one scale for each tensor, and the zero point 0."""

    @property
    def label(self) -> str:
        """Return the precision in one word: `w8a16`, `w8a8`, `mixed-30`, `w8a32`."""
        match self.activations:
            case Mixed(int8_percent=percent):
                return f"mixed-{percent}"
            case FloatActivations():
                return FLOAT_LABEL
            case W8A16() | W8A8():
                return self.activations.scheme
            case _:
                assert_never(self.activations)


def int8_percent_of(label: str) -> int:
    """Return the share of 8 bits that a precision's label names, in percent; 0 for a label without one."""
    scheme, _, share = label.partition("-")
    if scheme == "mixed" and share.isdecimal():
        return int(share)
    return W8A8.int8_percent if scheme == "w8a8" else 0
