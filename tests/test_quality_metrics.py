"""Metrics of quality: their mathematics and networks give values that are known by other means."""

import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")
pytest.importorskip("torchmetrics")

from torchmetrics.image.fid import _compute_fid  # noqa: E402
from torchmetrics.image.kid import maximum_mean_discrepancy, poly_mmd  # noqa: E402

from quadbench import zoo  # noqa: E402
from quadbench.artifacts.pixels import read_pixels  # noqa: E402
from quadbench.quality.metrics import (  # noqa: E402
    as_batch,
    cosine,
    direction_similarity,
    frechet_distance,
    kernel_distance,
    similarity,
    sqnr_db,
    ssim,
    structure_distance,
)
from quadbench.quality.networks import MIN_PIXELS, find_network  # noqa: E402


def features(n: int, d: int, *, seed: int, shift: float = 0.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(shift, 1.0, (n, d))


def photo(size: int = 64) -> np.ndarray:
    return np.asarray(Image.fromarray(read_pixels(zoo.task_inputs("remove-object")[0].image)).resize((size, size)))


def network(name: str):
    packaged = find_network(name, {})
    if isinstance(packaged, str):
        pytest.skip(packaged)
    return packaged


def test_sqnr_is_the_power_of_the_exact_over_that_of_the_difference():
    exact, quantized = [np.full((2, 3), 2.0), np.full(4, 1.0)], [np.full((2, 3), 2.2), np.full(4, 1.0)]
    assert sqnr_db(exact, quantized) == pytest.approx(10 * math.log10((6 * 4 + 4) / (6 * 0.04)))


def test_sqnr_is_infinite_where_nothing_differs():
    assert sqnr_db([np.ones(3)], [np.ones(3)]) == math.inf


def test_cosine_takes_arrays_as_vectors():
    assert cosine(np.array([[3.0, 0.0], [0.0, 4.0]]), np.array([[3.0, 0.0], [0.0, 0.0]])) == pytest.approx(0.6)


def test_cosine_with_zero_is_no_number():
    assert math.isnan(cosine(np.zeros(3), np.ones(3)))


def test_ssim_of_an_image_with_itself_is_one():
    assert ssim(photo(), photo()) == pytest.approx(1.0)


def test_ssim_of_flat_images_is_its_luminance_term():
    flat, brighter = np.full((16, 16, 3), 102, np.uint8), np.full((16, 16, 3), 153, np.uint8)
    a, b, c1 = 0.4, 0.6, 0.01**2
    assert ssim(flat, brighter) == pytest.approx((2 * a * b + c1) / (a * a + b * b + c1), rel=1e-4)


def test_kid_is_the_mean_over_pairs_of_pairs():
    x, y = features(5, 3, seed=0), features(5, 3, seed=1, shift=0.5)

    def k(a: np.ndarray, b: np.ndarray) -> float:
        return (float(a @ b) / 3 + 1) ** 3

    terms = [k(x[i], x[j]) + k(y[i], y[j]) - k(x[i], y[j]) - k(x[j], y[i]) for i in range(5) for j in range(5) if i != j]
    assert kernel_distance(x, y) == pytest.approx(np.mean(terms))


def test_kid_of_equal_sets_is_zero_where_the_usual_estimate_is_not():
    x = features(6, 4, seed=0)
    kernel = (torch.from_numpy(x) @ torch.from_numpy(x).T / 4 + 1) ** 3
    assert kernel_distance(x, x) == pytest.approx(0.0, abs=1e-12)
    assert float(maximum_mean_discrepancy(kernel, kernel, kernel)) < -0.01


def test_kid_agrees_with_torchmetrics_over_many_images():
    x, y = features(800, 8, seed=0), features(800, 8, seed=1, shift=0.4)
    usual = float(poly_mmd(torch.from_numpy(x), torch.from_numpy(y)))
    assert kernel_distance(x, y) == pytest.approx(usual, rel=0.01)


def test_fid_of_equal_sets_is_zero():
    x = features(20, 6, seed=0)
    assert frechet_distance(x, x) == pytest.approx(0.0, abs=1e-9)


def test_fid_of_a_shift_is_its_squared_length():
    x = features(20, 6, seed=0)
    assert frechet_distance(x, x + 0.5) == pytest.approx(6 * 0.25)


@pytest.mark.parametrize("n", [40, 5], ids=["more images than features", "fewer"])
def test_fid_agrees_with_the_eigenvalues_of_the_covariances(n):
    x, y = features(n, 8, seed=0), features(n, 8, seed=1, shift=0.3) @ np.diag(np.linspace(0.5, 2, 8))
    moments = [torch.from_numpy(m) for f in (x, y) for m in (f.mean(axis=0), np.cov(f.T))]
    assert frechet_distance(x, y) == pytest.approx(float(_compute_fid(*moments)), rel=1e-4)


def test_similarity_ignores_length():
    assert similarity(torch.tensor([[1.0, 0.0]]), torch.tensor([[5.0, 0.0]])) == pytest.approx(1.0)


def test_direction_is_that_from_the_source():
    source, up, right = torch.tensor([[1.0, 0, 0]]), torch.tensor([[0, 1.0, 0]]), torch.tensor([[0, 0, 1.0]])
    assert direction_similarity(up, up, source) == pytest.approx(1.0)
    assert direction_similarity(up, right, source) == pytest.approx(0.5)


def test_direction_of_what_did_not_move_is_no_number():
    source, up = torch.tensor([[1.0, 0]]), torch.tensor([[0, 1.0]])
    assert math.isnan(direction_similarity(source, up, source))


def test_structure_ignores_a_rotation_of_all_tokens():
    tokens = torch.from_numpy(features(7, 4, seed=0))[None]
    turned = tokens @ torch.from_numpy(np.linalg.qr(features(4, 4, seed=1))[0])
    assert structure_distance(tokens, turned) == pytest.approx(0.0, abs=1e-12)
    assert structure_distance(tokens, torch.from_numpy(features(7, 4, seed=2))[None]) > 0.1


def test_st_lpips_gives_what_its_authors_code_gives():
    """The values are those of stlpips_pytorch 0.0.2's own `LPIPS(net="alex", variant="shift_tolerant")`, `normalize=True`."""
    distance = network("st-lpips")
    distances = [
        float(distance(*(as_batch(read_pixels(p)) for p in (i.image, i.truth)))) for i in zoo.task_inputs("remove-object")[:4]
    ]
    assert distances == pytest.approx([0.337415, 0.350343, 0.342026, 0.355890], abs=1e-6)


def test_st_lpips_needs_the_size_that_it_says():
    distance = network("st-lpips")
    enough, small = as_batch(photo(MIN_PIXELS)), as_batch(photo(MIN_PIXELS - 1))
    assert float(distance(enough, enough)) == 0.0
    with pytest.raises(RuntimeError):
        distance(small, small)


def test_st_lpips_hardly_sees_a_shift_that_psnr_does():
    distance = network("st-lpips")
    image = as_batch(photo(128))
    shifted, noisy = image[..., 1:, :], image + 0.2 * torch.randn(image.shape, generator=torch.Generator().manual_seed(0))
    assert float(distance(image[..., :-1, :], shifted)) < 0.1 * float(distance(image, noisy.clamp(0, 1)))


def test_efficientnet_sees_mountains_in_a_photograph_of_mountains():
    """ImageNet's class 970 is `alp`; a network put together wrongly, in its padding say, is much less sure."""
    net, mountains = network("efficientnet-lite0"), read_pixels(Path(__file__).parent / "data/mountains/mountains.png")
    with torch.no_grad():
        scores = torch.nn.functional.linear(net(as_batch(mountains)), net._weights["_fc.weight"], net._weights["_fc.bias"])
    probabilities = scores.softmax(dim=-1)[0]
    assert int(probabilities.argmax()) == 970
    assert float(probabilities[970]) > 0.75


def test_efficientnet_gives_features_of_any_size_of_image():
    net = network("efficientnet-lite0")
    assert net(as_batch(photo(30))).shape == (1, 1280)
