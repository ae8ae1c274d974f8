"""Sampler tables against diffusers' schedulers, step by step, and the fit of OLSS."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from diffusers import DDIMScheduler, EulerDiscreteScheduler, LCMScheduler  # noqa: E402
from support.sentences import raising  # noqa: E402

from quadbench.errors import UserError  # noqa: E402
from quadbench.quad.samplers.ed import ed_table  # noqa: E402
from quadbench.quad.samplers.lcm import lcm_table  # noqa: E402
from quadbench.quad.samplers.olss import SamplerInput, ddim_table, olss_table  # noqa: E402
from quadbench.quad.samplers.table import SamplerTable, run_table  # noqa: E402

CONFIG = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
ALPHAS = DDIMScheduler(**CONFIG).alphas_cumprod.double()
SHAPE = (1, 4, 4, 4)


def _denoise(scale: torch.Tensor) -> object:
    """Return a stand-in for a U-Net: deterministic, smooth, and different at every step."""
    return lambda step, sample: torch.tanh(sample * scale) + 0.1 * step


def _run(table: SamplerTable, noise: torch.Tensor) -> torch.Tensor:
    return run_table(table, _denoise(torch.tensor(0.3)), latent=torch.zeros(SHAPE), noise=noise)


def _run_scheduler(scheduler: object, steps: int, noise: torch.Tensor) -> torch.Tensor:
    """Run the loop of a diffusers pipeline, with the scheduler's noise taken from `noise`."""
    scheduler.set_timesteps(steps)
    denoise, x = _denoise(torch.tensor(0.3)), noise[:1] * scheduler.init_noise_sigma
    for i, t in enumerate(scheduler.timesteps):
        eps = denoise(i, scheduler.scale_model_input(x, t))
        x = scheduler.step(eps, t, x).prev_sample if i == len(scheduler.timesteps) - 1 else _step(scheduler, eps, t, x, noise, i)
    return x


def _step(scheduler: object, eps: torch.Tensor, t: torch.Tensor, x: torch.Tensor, noise: torch.Tensor, i: int) -> torch.Tensor:
    if not isinstance(scheduler, LCMScheduler):
        return scheduler.step(eps, t, x).prev_sample
    generator = torch.Generator().manual_seed(7)
    for _ in range(i + 1):
        torch.randn(SHAPE, generator=generator)  # the draws before this step's
    return scheduler.step(eps, t, x, generator=generator).prev_sample


def _noise(steps: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(7)
    return torch.cat([torch.randn(SHAPE, generator=generator) for _ in range(1 + steps)])


@pytest.mark.parametrize("steps", [1, 2, 4, 8])
def test_lcm_table_equals_diffusers_scheduler(steps: int) -> None:
    table, scheduler = lcm_table(ALPHAS, steps=steps), LCMScheduler(**CONFIG)
    expected = _run_scheduler(scheduler, steps, _noise(steps))
    assert list(table.timesteps) == scheduler.timesteps.tolist()
    torch.testing.assert_close(_run(table, _noise(steps)), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("steps", [1, 4, 8, 20])
def test_ed_table_equals_diffusers_scheduler(steps: int) -> None:
    table = ed_table(ALPHAS, steps=steps)
    scheduler = EulerDiscreteScheduler(**CONFIG, timestep_spacing="leading", steps_offset=1)
    expected = _run_scheduler(scheduler, steps, _noise(steps))
    assert list(table.timesteps) == scheduler.timesteps.tolist()
    torch.testing.assert_close(_run(table, _noise(steps)), expected, atol=1e-5, rtol=1e-5)


def test_ddim_table_equals_diffusers_scheduler() -> None:
    scheduler = DDIMScheduler(**CONFIG, clip_sample=False, set_alpha_to_one=False, steps_offset=1)
    expected = _run_scheduler(scheduler, 10, _noise(10))
    torch.testing.assert_close(_run(ddim_table(ALPHAS, steps=10), _noise(10)), expected, atol=1e-5, rtol=1e-5)


def test_strength_keeps_the_last_part_of_the_schedule() -> None:
    full, part = ddim_table(ALPHAS, steps=100), ddim_table(ALPHAS, steps=100, strength=0.7)
    assert part.timesteps == full.timesteps[30:]
    assert part.start.latent > 0


TABLES = {
    "lcm": (lcm_table, LCMScheduler(**CONFIG)),
    "ed": (ed_table, EulerDiscreteScheduler(**CONFIG, timestep_spacing="leading", steps_offset=1)),
    "ddim": (ddim_table, DDIMScheduler(**CONFIG, clip_sample=False, set_alpha_to_one=False, steps_offset=1)),
}


@pytest.mark.parametrize("strength", [1.0, 0.5])
@pytest.mark.parametrize("scheme", TABLES)
def test_image_to_image_starts_from_the_image_and_noise_as_diffusers_adds_them(scheme: str, strength: float) -> None:
    """Also at full strength, where diffusers' image-to-image pipeline calls the scheduler's add_noise too."""
    make, scheduler = TABLES[scheme]
    table = make(ALPHAS, steps=8, strength=strength, is_image_to_image=True)
    latent, noise = torch.randn(SHAPE), torch.randn(SHAPE)
    scheduler.set_timesteps(8)
    timesteps = scheduler.timesteps[8 - int(8 * strength) :]
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(8 - int(8 * strength))
    expected = scheduler.add_noise(latent, noise, timesteps[:1])
    assert list(table.timesteps) == timesteps.tolist()
    torch.testing.assert_close(table.start.latent * latent + table.start.noise * noise, expected, atol=1e-5, rtol=1e-5)


def test_the_start_of_image_to_image_at_full_strength_by_hand() -> None:
    """Without any code that is tested: alpha-bar is the product of 1 - beta over the time steps up to the first one."""
    betas = np.linspace(CONFIG["beta_start"] ** 0.5, CONFIG["beta_end"] ** 0.5, 1000) ** 2
    alpha_bar = np.cumprod(1 - betas)
    lcm, ed = (make(ALPHAS, steps=4, is_image_to_image=True).start for make in (lcm_table, ed_table))
    assert (lcm.latent, lcm.noise) == pytest.approx((alpha_bar[999] ** 0.5, (1 - alpha_bar[999]) ** 0.5), rel=1e-5)
    assert (ed.latent, ed.noise) == pytest.approx((1.0, ((1 - alpha_bar[751]) / alpha_bar[751]) ** 0.5), rel=1e-5)
    assert lcm.latent > 0.06


def test_what_has_no_image_to_mix_starts_from_noise_alone() -> None:
    for make in (lcm_table, ed_table, ddim_table):
        assert make(ALPHAS, steps=4).start.latent == 0


def test_a_strength_of_which_no_step_is_left_is_refused() -> None:
    with raising(UserError, "0.1", 4):
        ed_table(ALPHAS, steps=4, strength=0.1)


def _inputs(count: int = 2) -> list[SamplerInput]:
    return [
        SamplerInput(
            denoise=_denoise(torch.tensor(0.2 + 0.1 * k)),
            latent=torch.zeros(SHAPE),
            noise=torch.randn(SHAPE, generator=torch.Generator().manual_seed(k)),
        )
        for k in range(count)
    ]


TEACHER = ddim_table(ALPHAS, steps=20)


def test_olss_with_all_steps_repeats_the_teacher() -> None:
    table = olss_table(TEACHER, _inputs(), steps=20)
    assert table.timesteps == TEACHER.timesteps
    assert table.fit_error < 1e-5  # samples are float32


def test_olss_with_fewer_steps_starts_where_the_teacher_starts_and_fits_worse_the_fewer_they_are() -> None:
    tables = [olss_table(TEACHER, _inputs(), steps=steps) for steps in (2, 4, 8)]
    assert all(table.timesteps[0] == TEACHER.timesteps[0] for table in tables)
    assert [len(table.steps) for table in tables] <= [2, 4, 8]
    assert tables[0].fit_error >= tables[1].fit_error >= tables[2].fit_error


def test_the_fit_error_is_what_the_table_itself_ends_with() -> None:
    """Also far from the teacher's samples, as two steps are here: the predictions that count are the table's own."""
    inputs = _inputs()
    table = olss_table(TEACHER, inputs, steps=2)
    visited = [TEACHER.timesteps.index(t) for t in table.timesteps]
    ends = []
    for given in inputs:
        own = lambda i, x, e=given: e.denoise(visited[i], x)  # noqa: E731
        final = run_table(table, own, latent=given.latent, noise=given.noise.repeat(3, 1, 1, 1))
        ends.append(final - run_table(TEACHER, given.denoise, latent=given.latent, noise=given.noise.repeat(21, 1, 1, 1)))
    assert table.fit_error > 1e-3
    assert float(torch.cat(ends).square().mean().sqrt()) == pytest.approx(table.fit_error, rel=1e-4)


def test_olss_of_a_straight_trajectory_is_shorter_than_asked_for_and_exact() -> None:
    constant = lambda _step, sample: torch.ones_like(sample)  # noqa: E731
    table = olss_table(TEACHER, [SamplerInput(denoise=constant, latent=torch.zeros(SHAPE), noise=torch.randn(SHAPE))], steps=8)
    assert 1 <= len(table.steps) <= 8
    assert table.fit_error < 1e-5  # samples are float32


def test_olss_is_fitted_to_what_is_replaced_when_inpainting() -> None:
    """The kept region jumps to the input's own noise after each step, which no combination of predictions gives."""
    mask = torch.zeros(1, 1, 4, 4)
    mask[..., :2] = 1
    given = SamplerInput(denoise=_denoise(torch.tensor(0.3)), latent=torch.randn(SHAPE), noise=torch.randn(SHAPE), mask=mask)
    assert given.fitted(given.noise).shape == (given.noise.numel() // 2,)
    assert olss_table(TEACHER, [given], steps=20).fit_error < 1e-5


def test_inpainting_ends_with_the_known_region_untouched() -> None:
    mask = torch.zeros(1, 1, 4, 4)
    mask[..., :2] = 1
    latent = torch.randn(SHAPE)
    for table in (lcm_table(ALPHAS, steps=4), ed_table(ALPHAS, steps=4), ddim_table(ALPHAS, steps=10)):
        final = run_table(table, _denoise(torch.tensor(0.3)), latent=latent, noise=_noise(10), mask=mask)
        torch.testing.assert_close(final[..., 2:], latent[..., 2:])
        assert not torch.allclose(final[..., :2], latent[..., :2])
