"""A recipe's U-Nets, made from one that was exported with LoRA inputs at all layers: they compute what exported ones do."""

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from onnx import ModelProto  # noqa: E402
from support.small_graphs import seeded_feed  # noqa: E402

from quadbench.quad.adapters.adapter import Adapter, merge, own_tensors, random_adapter  # noqa: E402
from quadbench.quad.adapters.loading import sites_of_unet  # noqa: E402
from quadbench.quad.model import float_graphs  # noqa: E402
from quadbench.quad.model.float_graphs import copy_of_modules, export_unet  # noqa: E402
from quadbench.quad.model.foundation import Foundation  # noqa: E402
from quadbench.quad.model.initializers import file_of, open_session  # noqa: E402
from quadbench.quad.model.lora_sites import with_merged, with_ranks, without_lora  # noqa: E402

pytestmark = pytest.mark.slow
KINDS = ("attention", "feed-forward", "projection", "convolution")
# Layers of every form: of tokens, of pixels, and of a vector, with and without bias.
SOME = (".to_q", ".to_out.0", ".ff.net.2", ".conv1", ".proj_in", ".time_emb_proj", ".linear_1", "conv_in", ".conv_shortcut")


def ranks_of(foundation: Foundation) -> dict[str, int]:
    sites = sorted(site for site in sites_of_unet(foundation.skeleton).slots if site.endswith(SOME))
    return {site: 1 + number % 5 for number, site in enumerate(sites)}


@pytest.fixture(scope="module", params=["inside", "outside"])
def everywhere(foundation: Foundation, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ModelProto:
    """The tiny U-Net with LoRA inputs at all layers, its weights inside the graph or in a file."""
    ranks = dict.fromkeys(sorted(sites_of_unet(foundation.skeleton).slots), 2)
    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        if request.param == "outside":
            patch.setattr(float_graphs, "INLINE_LIMIT_BYTES", 0)
        model = export_unet(foundation, foundation.unet, ranks, tmp_path_factory.mktemp("weights"))
    assert (file_of(model) is not None) is (request.param == "outside")
    return model


def run(model: ModelProto, feed: dict[str, np.ndarray]) -> np.ndarray:
    return open_session(model).run(None, {value.name: feed[value.name] for value in model.graph.input})[0]


def operators(model: ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def test_a_graph_of_other_ranks_at_fewer_layers_is_the_exported_one(
    everywhere: ModelProto, foundation: Foundation, tmp_path: Path
) -> None:
    with torch.no_grad():
        exported = export_unet(foundation, foundation.unet, ranks_of(foundation), tmp_path)
    made = with_ranks(everywhere, ranks_of(foundation))
    assert [(v.name, v.type) for v in made.graph.input] == [(v.name, v.type) for v in exported.graph.input]
    assert sorted(operators(made)) == sorted(operators(exported))
    feed = seeded_feed(exported)
    assert np.array_equal(run(made, feed), run(exported, feed))
    assert len(everywhere.graph.input) > len(made.graph.input)  # the first one is as it was


def test_a_merged_graph_computes_what_the_exported_merged_model_does(
    everywhere: ModelProto, foundation: Foundation, tmp_path: Path
) -> None:
    adapter: Adapter = random_adapter("it", foundation.unet, rank=3, kinds=KINDS, seed=1)
    merged = copy_of_modules(foundation.unet)
    merge(adapter, merged)
    with torch.no_grad():
        exported = export_unet(foundation, merged, {}, tmp_path)
    made = with_merged(everywhere, own_tensors(adapter), tmp_path)
    feed = seeded_feed(exported)
    assert sorted(operators(made)) == sorted(operators(exported))
    np.testing.assert_allclose(run(made, feed), run(exported, feed), rtol=1e-4, atol=1e-5)
    assert np.abs(run(made, feed) - run(without_lora(everywhere), feed)).max() > 1e-3
