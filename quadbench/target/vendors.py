"""Vendors: a chip as LiteRT names it -> its maker, and the names by which LiteRT reaches that maker's software."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Vendor:
    """A maker of chips. `module` is LiteRT's name for it, `library` the one by which its plugin reaches its compiler.

    `dispatch` is the library by which LiteRT runs on a device what that compiler has made.
    """

    title: str
    module: str
    library: str
    sdk_package: str
    dispatch: str

    @property
    def sdk_module(self) -> str:
        """Return the name by which the SDK's package is imported."""
        return f"ai_edge_litert_sdk_{self.module}"


VENDORS = {
    "SM": Vendor(
        title="Qualcomm",
        module="qualcomm",
        library="libQnnHtp.so",
        sdk_package="ai-edge-litert-sdk-qualcomm",
        dispatch="libLiteRtDispatch_Qualcomm.so",
    ),
    "MT": Vendor(
        title="MediaTek",
        module="mediatek",
        library="libneuronusdk_adapter.mtk.so",
        sdk_package="ai-edge-litert-sdk-mediatek",
        dispatch="libLiteRtDispatch_MediaTek.so",
    ),
    "E": Vendor(
        title="Samsung",
        module="samsung",
        library="libgraphgen_api.so",
        sdk_package="ai-edge-litert-sdk-samsung-nightly",
        dispatch="libLiteRtDispatch_Samsung.so",
    ),
    "Tensor_": Vendor(
        title="Google",
        module="google_tensor",
        library="liblitert_plugin_compiler.so",
        sdk_package="ai-edge-litert-sdk-google-tensor",
        dispatch="libLiteRtDispatch_GoogleTensor.so",
    ),
}
"""Vendors by the beginning of LiteRT's names of their chips."""


def vendor_of(soc: str) -> Vendor:
    """Return the vendor of a chip; a target has no other chips than those of the vendors here."""
    return next(vendor for prefix, vendor in VENDORS.items() if soc.startswith(prefix))
