"""Caveats: known reasons to distrust a measured figure, each with the kinds of figures concerned, an explanation and a remedy."""

from enum import StrEnum


class FigureKind(StrEnum):
    """The kinds of figures that a caveat can apply to."""

    TIME = "time"
    MEMORY = "memory"
    SIZE = "size"  # of a file
    PICTURE = "picture"


class Caveat(StrEnum):
    """A reason to distrust a measured figure. Reports show it beside the figure; nightly regression checks omit the figure."""

    VIRTUAL_DEVICE = "VIRTUAL_DEVICE"
    THIS_MACHINE = "THIS_MACHINE"
    EMULATED_NPU = "EMULATED_NPU"
    EMULATED_CPU = "EMULATED_CPU"
    FEW_SAMPLES = "FEW_SAMPLES"
    STILL_WARMING = "STILL_WARMING"
    THROTTLED = "THROTTLED"
    CHANGED_ENVIRONMENT = "CHANGED_ENVIRONMENT"
    CPU_FALLBACK = "CPU_FALLBACK"
    RANDOM_WEIGHTS = "RANDOM_WEIGHTS"
    DEBUG_BUILD = "DEBUG_BUILD"
    LOADED_HOST = "LOADED_HOST"
    PEAK_SINCE_START = "PEAK_SINCE_START"
    UNEVEN_CALIBRATION = "UNEVEN_CALIBRATION"
    SIMULATED_INTEGERS = "SIMULATED_INTEGERS"
    PLAIN_KERNELS = "PLAIN_KERNELS"
    UNET_ONLY = "UNET_ONLY"

    @property
    def label(self) -> str:
        """Return the caveat's name in lower-case words, such as `virtual device`."""
        return self.value.lower().replace("_", " ")

    def is_about(self, *kinds: FigureKind) -> bool:
        """Return whether the caveat applies to any of the given kinds of figures."""
        return not _ABOUT[self].isdisjoint(kinds)

    @property
    def doubt(self) -> str:
        """Return a sentence on why the figure cannot be trusted."""
        return _DOUBTS[self]

    @property
    def remedy(self) -> str:
        """Return a sentence on how to remove the caveat; empty if there is no way."""
        return _REMEDIES.get(self, "")

    @property
    def advice(self) -> str:
        """Return why the figure cannot be trusted, and how to remove the caveat."""
        return f"{self.doubt} {self.remedy}".rstrip()


_DOUBTS = {
    Caveat.VIRTUAL_DEVICE: "Times and memory are this machine's CPU, not a phone's NPU.",
    Caveat.THIS_MACHINE: "Times and memory are this machine's own and say nothing about a phone.",
    Caveat.EMULATED_NPU: "Numerics are those of the vendor's emulator, compared with no hardware here; its times are left out.",
    Caveat.EMULATED_CPU: "Programs for arm64 ran in an emulator: pictures and sizes hold, memory does not; times are left out.",
    Caveat.FEW_SAMPLES: "There are too few samples for the percentiles.",
    Caveat.STILL_WARMING: "The first samples that count were slower than those after them.",
    Caveat.CHANGED_ENVIRONMENT: "The device's build, its libraries or the harness changed between launches that are compared.",
    Caveat.THROTTLED: "The device was hot or its clocks were capped.",
    Caveat.CPU_FALLBACK: "Some nodes ran on the CPU instead of the target; the run names them.",
    Caveat.RANDOM_WEIGHTS: "The weights are random: sizes and times hold, pictures and quality do not.",
    Caveat.DEBUG_BUILD: "The harness is a debug build.",
    Caveat.UNEVEN_CALIBRATION: "The shared graph was calibrated on more inputs than per-graph ones.",
    Caveat.SIMULATED_INTEGERS: "This CPU computes products in float between QuantizeLinear and DequantizeLinear: pictures are "
    "the quantized graph's, times are not those of integer kernels.",
    Caveat.PLAIN_KERNELS: "LiteRT's CPU runtime computes 16-bit products in plain loops: times say nothing of an NPU.",
    Caveat.UNET_ONLY: "An adapter's text encoder part was left out, in pictures and references alike.",
    Caveat.LOADED_HOST: "Other work was running on this machine's CPU while it was measured.",
    Caveat.PEAK_SINCE_START: "The kernel does not let a peak begin anew: each is the highest since the launch began.",
}
_REMEDIES = {
    Caveat.VIRTUAL_DEVICE: "Attach a phone for its own figures.",
    Caveat.THIS_MACHINE: "Attach a phone for its figures.",
    Caveat.FEW_SAMPLES: "Raise measure.iterations or measure.launches.",
    Caveat.STILL_WARMING: "Raise measure.warmup.",
    Caveat.THROTTLED: "Let the device cool and run again.",
    Caveat.DEBUG_BUILD: "Build the harness with CMAKE_BUILD_TYPE=Release.",
    Caveat.UNEVEN_CALIBRATION: "With quad.calibration: {scheme: joint} both are treated alike.",
    Caveat.SIMULATED_INTEGERS: "With precision.activations: {scheme: float} a CPU is faster.",
    Caveat.UNET_ONLY: "An adapter that is trained on the U-Net alone has none.",
    Caveat.LOADED_HOST: "Run again while nothing else runs there.",
}
_TIME, _MEMORY, _SIZE, _PICTURE = FigureKind
_ABOUT = {
    Caveat.VIRTUAL_DEVICE: {_TIME, _MEMORY},
    Caveat.THIS_MACHINE: {_TIME, _MEMORY},
    Caveat.EMULATED_NPU: {_TIME, _PICTURE},
    Caveat.EMULATED_CPU: {_TIME, _MEMORY},
    Caveat.FEW_SAMPLES: {_TIME},
    Caveat.STILL_WARMING: {_TIME},
    Caveat.CHANGED_ENVIRONMENT: {_TIME, _MEMORY},
    Caveat.THROTTLED: {_TIME},
    Caveat.CPU_FALLBACK: {_TIME, _MEMORY},
    Caveat.RANDOM_WEIGHTS: {_PICTURE},
    Caveat.DEBUG_BUILD: {_TIME, _MEMORY},
    Caveat.UNEVEN_CALIBRATION: {_PICTURE},
    Caveat.SIMULATED_INTEGERS: {_TIME},
    Caveat.PLAIN_KERNELS: {_TIME},
    Caveat.UNET_ONLY: {_TIME, _MEMORY, _SIZE, _PICTURE},
    Caveat.LOADED_HOST: {_TIME},
    Caveat.PEAK_SINCE_START: {_MEMORY},
}
