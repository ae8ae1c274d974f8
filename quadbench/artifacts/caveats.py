"""Caveats: reasons to distrust measured values. Each has an explanation, the kinds of values it affects and often a remedy."""

from enum import StrEnum


class FigureKind(StrEnum):
    """A kind of measured value that a caveat can apply to: time, memory, file size or picture."""

    TIME = "time"
    MEMORY = "memory"
    SIZE = "size"  # of a file
    PICTURE = "picture"


class Caveat(StrEnum):
    """A reason to distrust a measured value. Reports show it beside the value; nightly regression checks omit the value."""

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
        """Return whether the caveat applies to measured values of any of the given kinds, such as times or file sizes."""
        return not _ABOUT[self].isdisjoint(kinds)

    @property
    def doubt(self) -> str:
        """Return the reason why a measured value with this caveat cannot be trusted, as one or two sentences."""
        return _DOUBTS[self]

    @property
    def remedy(self) -> str:
        """Return a sentence that says how to remove the caveat, or an empty string if no remedy is known."""
        return _REMEDIES.get(self, "")

    @property
    def advice(self) -> str:
        """Return, as one string, why values with this caveat cannot be trusted and, if possible, how to remove the caveat."""
        return f"{self.doubt} {self.remedy}".rstrip()


_DOUBTS = {
    Caveat.VIRTUAL_DEVICE: "Times and memory are those of this machine's CPU, not of a phone's NPU.",
    Caveat.THIS_MACHINE: "Times and memory are this machine's own and say nothing about a phone.",
    Caveat.EMULATED_NPU: "Pictures come from the vendor's emulator, which was not compared with hardware. Times are left out.",
    Caveat.EMULATED_CPU: "An emulator ran arm64 programs: pictures and sizes are valid. Times and memory are left out.",
    Caveat.FEW_SAMPLES: "There are too few samples for the percentiles.",
    Caveat.STILL_WARMING: "The first samples after warm-up were slower than later ones.",
    Caveat.CHANGED_ENVIRONMENT: "The device's build, its libraries or the harness changed between compared launches.",
    Caveat.THROTTLED: "The device was hot or its clocks were capped.",
    Caveat.CPU_FALLBACK: "Some nodes ran on the CPU instead of the target; the run names them.",
    Caveat.RANDOM_WEIGHTS: "The weights are random: sizes and times are valid, pictures and quality mean nothing.",
    Caveat.DEBUG_BUILD: "The harness is a debug build.",
    Caveat.UNEVEN_CALIBRATION: "The shared graph was calibrated on more inputs than per-graph ones.",
    Caveat.SIMULATED_INTEGERS: "This CPU computes products in float between QuantizeLinear and DequantizeLinear: pictures are "
    "those of the quantized graph, times are not those of integer kernels.",
    Caveat.PLAIN_KERNELS: "LiteRT's CPU runtime computes 16-bit products in plain loops: times say nothing about an NPU.",
    Caveat.UNET_ONLY: "An adapter's text encoder part was left out, in pictures and references alike.",
    Caveat.LOADED_HOST: "Other work was running on this machine's CPU during the measurement.",
    Caveat.PEAK_SINCE_START: "The kernel cannot reset memory peaks: each peak is the highest since the launch began.",
}
_REMEDIES = {
    Caveat.VIRTUAL_DEVICE: "Attach a phone for its own figures.",
    Caveat.THIS_MACHINE: "Attach a phone for its figures.",
    Caveat.FEW_SAMPLES: "Raise measure.iterations or measure.launches.",
    Caveat.STILL_WARMING: "Raise measure.warmup.",
    Caveat.THROTTLED: "Let the device cool and run again.",
    Caveat.DEBUG_BUILD: "Build the harness with CMAKE_BUILD_TYPE=Release.",
    Caveat.UNEVEN_CALIBRATION: "Set quad.calibration to {scheme: joint}, which treats both equally.",
    Caveat.SIMULATED_INTEGERS: "Set precision.activations to {scheme: float}, which is faster on a CPU.",
    Caveat.UNET_ONLY: "Train the adapter on the U-Net alone.",
    Caveat.LOADED_HOST: "Run again while nothing else runs on this machine.",
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
