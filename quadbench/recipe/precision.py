"""Precision: the bits of everything in the U-Net."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from quadbench.spec import Spec


class W8A16(Spec):
    """All activations in 16 bits."""

    scheme: Literal["w8a16"]
    int8_percent: ClassVar[int] = 0


class W8A8(Spec):
    """All activations in 8 bits."""

    scheme: Literal["w8a8"]
    int8_percent: ClassVar[int] = 100


class Mixed(Spec):
    """Some activations in 8 bits, the others in 16; those take 8 whose rounding was measured to cost least."""

    scheme: Literal["mixed"]
    int8_percent: int = Field(ge=0, le=100)
    """How many of the U-Net's activation encodings have 8 bits: 0 is w8a16, 100 is w8a8."""


class Precision(Spec):
    """Bits of everything in the U-Net."""

    weights: Literal["int8"]
    """The base model's weights, per output channel."""
    activations: Annotated[W8A16 | W8A8 | Mixed, Field(discriminator="scheme")]
    lora: Literal["int16", "int8"]
    """The LoRA inputs, per tensor, zero point 0."""

    @property
    def label(self) -> str:
        """Of the activations, in one word: `w8a16`, `w8a8`, `mixed-30`."""
        scheme = self.activations.scheme
        return f"mixed-{self.activations.int8_percent}" if scheme == "mixed" else scheme
