"""Training of the built-in model: what goes on after a stop, what is drawn, and what its samplers do."""

import json
from pathlib import Path

import pytest
from PIL import Image

torch = pytest.importorskip("torch")
pytest.importorskip("peft")
from quadbench.quad.samplers.lcm import lcm_table  # noqa: E402
from quadbench.quad.samplers.schedule import Schedule  # noqa: E402
from quadbench.quad.samplers.table import run_table  # noqa: E402
from training import autoencoder, captions, corpus, loop, noise, pictures, removal, text_to_image  # noqa: E402

PLAN = loop.TrainingPlan(steps=30, batch=4, learning_rate=0.05, seed=3, warmup=5)


class Quarter(torch.nn.Module):
    """A U-Net in form only: it answers a quarter of what it is shown."""

    def forward(self, x, times, states):
        return type("Answer", (), {"sample": 0.25 * x})


def _train(folder: Path, **limits: float) -> torch.Tensor:
    """Fit a line to noisy points; the weight after it."""
    torch.manual_seed(0)
    model = torch.nn.Linear(1, 1)

    def loss_of_batch(generator: torch.Generator) -> torch.Tensor:
        x = torch.randn(PLAN.batch, 1, generator=generator)
        return ((model(x) - 3 * x) ** 2).mean()

    loop.train({"line": model}, loss_of_batch, PLAN, loop.Workbench(folder=folder, **limits), figures=lambda: {"figure": 1.0})
    return model.weight.detach()


def test_a_stage_that_was_stopped_ends_as_if_it_had_not_been(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = _train(tmp_path / "whole")
    monkeypatch.setattr(loop, "CHECKPOINT_S", -1.0)  # after every step
    steps = iter(range(1000))
    monkeypatch.setattr(loop, "_log", lambda *_: _stop_at(next(steps), 12))
    with pytest.raises(KeyboardInterrupt):
        _train(tmp_path / "stopped")
    monkeypatch.undo()
    assert _train(tmp_path / "stopped") == whole


def _stop_at(count: int, last: int) -> None:
    if count == last:
        raise KeyboardInterrupt


def test_a_stage_whose_time_is_up_says_so(tmp_path: Path) -> None:
    with pytest.raises(loop.UnfinishedError, match="step 0 of 30"):
        _train(tmp_path / "late", minutes=0)


def test_a_preview_takes_what_there_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(1000))
    monkeypatch.setattr(loop.time, "monotonic", lambda: float(next(clock)))
    early = _train(tmp_path / "early", minutes=0.5, is_preview=True)
    checkpoint = torch.load(tmp_path / "early" / "checkpoint.pt", weights_only=True)
    assert 0 < checkpoint["step"] < PLAN.steps
    assert early == checkpoint["ema"]["line"]["weight"]
    assert early != checkpoint["modules"]["line"]["weight"]


def test_a_checkpoint_brings_figures_to_the_log(tmp_path: Path) -> None:
    _train(tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert {"step": 30, "figure": 1.0} in lines


def test_times_of_a_batch_are_spread_over_the_schedule() -> None:
    times = noise.spread_times(10, torch.Generator().manual_seed(0))
    assert (times // 100).tolist() == list(range(10))


def test_the_weight_of_the_loss_is_largest_where_pictures_take_shape() -> None:
    weight = noise.weight(torch.arange(noise.TIMES)).flatten()
    snr = noise.ALPHA_BAR / (1 - noise.ALPHA_BAR)
    assert weight[snr > 100].max() < 0.1 < 1 < weight[snr < 1].min()
    assert weight.max() == 8


def test_removal_is_trained_on_what_the_sampler_table_shows() -> None:
    generator = torch.Generator().manual_seed(0)
    composite, truth = torch.randn(2, 1, 4, 16, 16, generator=generator)
    mask = (torch.rand(1, 1, 16, 16, generator=generator) < 0.3).float()
    batch = removal.Pool(composite=composite, truth=truth, mask=mask, prompt=torch.zeros(1, 16, 128))
    final = removal.sample(Quarter(), batch, steps=4, generator=torch.Generator().manual_seed(1))
    drawn = torch.Generator().manual_seed(1)
    fresh = torch.cat([torch.randn(1, 4, 16, 16, generator=drawn) for _ in range(4)] + [torch.zeros(1, 4, 16, 16)])
    table = lcm_table(Schedule(alphas=tuple(noise.ALPHA_BAR.double().tolist())), steps=4)
    expected = run_table(table, lambda _, x: 0.25 * x, latent=composite, noise=fresh, mask=mask)
    assert tuple(table.timesteps) == removal.SAMPLER_TIMES
    torch.testing.assert_close(final, expected, atol=1e-3, rtol=1e-3)


def test_a_scene_may_be_called_by_its_ground_alone() -> None:
    wording = captions.of_scene("blue striped scene of red apple and dog face")
    assert wording.texts == ("blue striped scene of red apple and dog face", "blue striped scene", "scene")
    assert sum(wording.chances) == 1


def _concept(*names: str, keywords: tuple[str, ...] = ()) -> corpus.Concept:
    cutouts = {style: Image.new("RGBA", (64, 64), (221, 46, 68, 255)) for style in corpus.STYLES.values()}
    return corpus.Concept(names=names, keywords=keywords, is_sign=False, is_thing=True, is_face=False, cutouts=cutouts)


def test_a_concept_is_called_by_its_names_its_colour_and_its_keywords() -> None:
    wording = captions.of_concept(_concept("apple", "pomme", keywords=("fruit",)), "noto")
    assert wording.texts == ("noto apple", "noto pomme", "noto red apple", "noto apple fruit", "apple")
    assert wording.chances == pytest.approx((0.45, 0.15, 0.15, 0.15, 0.1))


def test_what_a_concept_lacks_goes_to_its_first_name() -> None:
    wording = captions.of_concept(_concept("red apple"), "noto")
    assert dict(zip(wording.texts, wording.chances, strict=True)) == pytest.approx({"noto red apple": 0.9, "red apple": 0.1})


def test_standardised_latents_change_no_picture() -> None:
    vae = autoencoder.build().eval()
    pixels = torch.randint(256, (8, 64, 64, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    before = autoencoder.decode(vae, autoencoder.encode(vae, pixels))
    latents = autoencoder.encode(vae, pixels)
    autoencoder.standardise(vae, latents.mean((0, 2, 3)), latents.std((0, 2, 3)))
    after = autoencoder.encode(vae, pixels)
    torch.testing.assert_close(autoencoder.decode(vae, after), before, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(after.mean((0, 2, 3)), torch.zeros(4), atol=1e-4, rtol=0)
    torch.testing.assert_close(after.std((0, 2, 3)), torch.ones(4), atol=1e-4, rtol=0)
    with torch.no_grad():
        posterior = vae.encode(pictures.to_tensor(pixels)).latent_dist
    torch.testing.assert_close(posterior.std, torch.full_like(posterior.std, autoencoder.NOISE))


def test_the_mix_draws_every_kind() -> None:
    kinds = {kind: torch.full((2, 64, 64, 3), 10 * index, dtype=torch.uint8) for index, kind in enumerate(pictures.SHARES)}
    drawn = pictures.Mix(kinds=kinds).draw(400, torch.Generator().manual_seed(0))
    assert drawn.shape == (400, 3, 64, 64)
    counts = [int((drawn[:, 0, 0, 0] == 10 * index / 127.5 - 1).sum()) for index in range(len(kinds))]
    assert counts == pytest.approx([400 * share for share in pictures.SHARES.values()], abs=25)


def test_a_tokenizer_that_a_call_before_has_left_is_taken(tmp_path: Path) -> None:
    first = text_to_image.kept_tokenizer(tmp_path / "tokenizer", ["noto red apple", "noto tulip"])
    again = text_to_image.kept_tokenizer(tmp_path / "tokenizer", ["twemoji ghost"])
    assert again.get_vocab() == first.get_vocab()
    assert text_to_image.token_ids(again, ["noto tulip"]).tolist() == text_to_image.token_ids(first, ["noto tulip"]).tolist()
    assert [path.name for path in tmp_path.iterdir()] == ["tokenizer"]
