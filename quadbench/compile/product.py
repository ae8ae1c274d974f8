"""Product: the compiled graphs of a bundle, as a compiler hands them over."""

from dataclasses import dataclass, field

from quadbench.artifacts import Caveat, CompileCost, Graph, Kernels


@dataclass(frozen=True, kw_only=True)
class Product:
    """The graphs in the order in which they were given, the versions that made them, doubts; costs and kernels by path."""

    graphs: tuple[Graph, ...]
    versions: dict[str, str] = field(default_factory=dict)
    caveats: tuple[Caveat, ...] = ()
    costs: dict[str, CompileCost] = field(default_factory=dict)
    kernels: dict[str, Kernels] = field(default_factory=dict)
