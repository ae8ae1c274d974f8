"""Int8: a bundle -> how much of each of its quantized U-Nets runs in 8 bits, as a table and in one sentence."""

from quadbench.artifacts import Bundle, Graph, Int8Share, Share, Variant
from quadbench.report.setups import titled
from quadbench.report.text_table import TextTable

_NOTE = "In 8 bits: data and result have 8 bits (W8A8), as the weights have; of a LoRA product its weights, too."


def int8_table(bundle: Bundle, where: str = "") -> TextTable | None:
    """Return a row for each quantized U-Net; None for a bundle that was built before this was counted.

    `where` are the devices that ran the bundle, where that are not all.
    """
    rows = tuple((_name(graph), *(_cell(share) for share in _shares(graph.int8))) for graph in bundle.graphs if graph.int8)
    columns = ("U-Net", "Layers", "Parameters", "Multiply-accumulates", "LoRA products")
    is_numeric = (False, True, True, True, True)
    title = titled(bundle.precision, where)
    return TextTable(title=title, columns=columns, numeric=is_numeric, rows=rows, notes=(_NOTE,)) if rows else None


def int8_of_shared(bundle: Bundle) -> Int8Share | None:
    """Return what of the shared U-Net runs in 8 bits; None for a bundle that was built before this was counted."""
    return next((graph.int8 for graph in bundle.graphs if graph.variant is Variant.SHARED and graph.int8), None)


def int8_note(bundle: Bundle) -> str | None:
    """Say what of the shared U-Net runs in 8 bits; None if nothing does, or if it was not counted."""
    int8 = int8_of_shared(bundle)
    if int8 is None or int8.layers.int8 == 0:
        return None
    layers, parameters, work, products = (_cell(share) for share in _shares(int8))
    shares = f"parameters {parameters}, layers {layers}, multiply-accumulates {work}, LoRA products {products}"
    return f"W8A8 in the shared U-Net ({bundle.precision}): {shares}."


def _shares(int8: Int8Share) -> tuple[Share, ...]:
    return int8.layers, int8.parameters, int8.multiply_accumulates, int8.lora_products


def _name(graph: Graph) -> str:
    return f"{graph.variant.value}, {graph.task}" if graph.task else graph.variant.value


def _cell(share: Share) -> str:
    return f"{share.percent:.1f} % ({share.int8:,} of {share.total:,})" if share.total else "none"
