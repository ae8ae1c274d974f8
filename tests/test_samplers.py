"""Sampler tables against diffusers' schedulers, step by step, and the fit of OLSS."""

import inspect
from functools import partial

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import diffusers  # noqa: E402
from diffusers import DDIMScheduler, EulerDiscreteScheduler, FlowMatchEulerDiscreteScheduler, LCMScheduler  # noqa: E402
from support.sentences import raising  # noqa: E402

from quadbench.errors import UserError  # noqa: E402
from quadbench.quad.samplers.ddim import ddim_table, teacher_table  # noqa: E402
from quadbench.quad.samplers.ed import ed_table, flow_table  # noqa: E402
from quadbench.quad.samplers.lcm import lcm_table  # noqa: E402
from quadbench.quad.samplers.olss import SamplerInput, olss_table  # noqa: E402
from quadbench.quad.samplers.schedule import DEFAULT_SPACING, Schedule, spaced_timesteps  # noqa: E402
from quadbench.quad.samplers.table import SamplerTable, run_table  # noqa: E402
from quadbench.quad.samplers.tcd import tcd_table  # noqa: E402

CONFIG = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
SCHEDULE = Schedule(alphas=tuple(DDIMScheduler(**CONFIG).alphas_cumprod.double().tolist()))
SHAPE = (1, 4, 4, 4)


def _denoise(scale: torch.Tensor) -> object:
    """Return a stand-in for a U-Net: deterministic, smooth, and different at every step."""
    return lambda step, sample: torch.tanh(sample * scale) + 0.1 * step


def _run(table: SamplerTable, noise: torch.Tensor) -> torch.Tensor:
    return run_table(table, _denoise(torch.tensor(0.3)), latent=torch.zeros(SHAPE), noise=noise)


def _run_scheduler(scheduler: object, steps: int | list[int], noise: torch.Tensor) -> torch.Tensor:
    """Run the loop of a diffusers pipeline, with the scheduler's noise taken from `noise`. `steps` may be time steps."""
    scheduler.set_timesteps(steps) if isinstance(steps, int) else scheduler.set_timesteps(timesteps=steps)
    denoise, x = _denoise(torch.tensor(0.3)), noise[:1] * getattr(scheduler, "init_noise_sigma", 1.0)
    for i, t in enumerate(scheduler.timesteps):
        eps = denoise(i, scheduler.scale_model_input(x, t) if hasattr(scheduler, "scale_model_input") else x)
        x = scheduler.step(eps, t, x).prev_sample if i == len(scheduler.timesteps) - 1 else _step(scheduler, eps, t, x, noise, i)
    return x


def _step(scheduler: object, eps: torch.Tensor, t: torch.Tensor, x: torch.Tensor, noise: torch.Tensor, i: int) -> torch.Tensor:
    if not isinstance(scheduler, LCMScheduler | diffusers.TCDScheduler):
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
    table, scheduler = lcm_table(SCHEDULE, steps=steps), LCMScheduler(**CONFIG)
    expected = _run_scheduler(scheduler, steps, _noise(steps))
    assert list(table.timesteps) == scheduler.timesteps.tolist()
    torch.testing.assert_close(_run(table, _noise(steps)), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("steps", [1, 4, 8, 20])
def test_ed_table_equals_diffusers_scheduler(steps: int) -> None:
    table = ed_table(SCHEDULE, steps=steps)
    scheduler = EulerDiscreteScheduler(**CONFIG, timestep_spacing="leading", steps_offset=1)
    expected = _run_scheduler(scheduler, steps, _noise(steps))
    assert list(table.timesteps) == scheduler.timesteps.tolist()
    torch.testing.assert_close(_run(table, _noise(steps)), expected, atol=1e-5, rtol=1e-5)


def test_ddim_table_equals_diffusers_scheduler() -> None:
    scheduler = DDIMScheduler(**CONFIG, clip_sample=False, set_alpha_to_one=False, steps_offset=1)
    expected = _run_scheduler(scheduler, 10, _noise(10))
    torch.testing.assert_close(_run(ddim_table(SCHEDULE, steps=10), _noise(10)), expected, atol=1e-5, rtol=1e-5)


PREDICTIONS = ("epsilon", "v_prediction", "sample")
SPACINGS = ("leading", "trailing", "linspace")
# Noise tells no image where the last time step of training is noise alone.
ENDS = [(p, False) for p in PREDICTIONS] + [(p, True) for p in PREDICTIONS if p != "epsilon"]


def _schedule(prediction: str, *, is_zero_snr: bool = False, **options: object) -> Schedule:
    scheduler = DDIMScheduler(**CONFIG, rescale_betas_zero_snr=is_zero_snr)
    return Schedule(alphas=tuple(scheduler.alphas_cumprod.double().tolist()), prediction=prediction, **options)


def _equal(table: SamplerTable, scheduler: object, steps: int | list[int]) -> None:
    """Assert that a table and one of diffusers' schedulers end with the same sample. Noise levels reach 4096, so x does too."""
    expected = _run_scheduler(scheduler, steps, _noise(8))
    assert list(table.timesteps) == pytest.approx(scheduler.timesteps.tolist(), abs=1e-4)
    torch.testing.assert_close(_run(table, _noise(8)), expected, atol=2e-3, rtol=2e-4)


@pytest.mark.parametrize(("prediction", "is_zero_snr"), ENDS)
@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("steps", [1, 2, 4, 8])
def test_each_prediction_and_spacing_equals_diffusers_schedulers(
    steps: int, prediction: str, spacing: str, is_zero_snr: bool
) -> None:
    schedule = _schedule(prediction, is_zero_snr=is_zero_snr, spacing=spacing)
    common = {**CONFIG, "prediction_type": prediction, "timestep_spacing": spacing, "rescale_betas_zero_snr": is_zero_snr}
    _equal(ed_table(schedule, steps=steps), EulerDiscreteScheduler(**common, steps_offset=1), steps)
    ddim = DDIMScheduler(**common, clip_sample=False, set_alpha_to_one=False, steps_offset=1)
    _equal(ddim_table(schedule, steps=steps), ddim, steps)
    _equal(lcm_table(schedule, steps=steps), LCMScheduler(**common), steps)


@pytest.mark.parametrize("timesteps", [[999, 749, 499, 249], [799], [999, 875, 500, 20, 0]])
@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("spacing", SPACINGS)
def test_listed_time_steps_equal_diffusers(timesteps: list[int], prediction: str, spacing: str) -> None:
    schedule = _schedule(prediction, spacing=spacing)
    common = {**CONFIG, "prediction_type": prediction, "timestep_spacing": spacing}
    listed = {"steps": len(timesteps), "timesteps": timesteps}
    _equal(lcm_table(schedule, **listed), LCMScheduler(**common), timesteps)
    _equal(ed_table(schedule, **listed), EulerDiscreteScheduler(**common), timesteps)


@pytest.mark.parametrize("eta", [0.0, 0.3, 0.77, 1.0])
@pytest.mark.parametrize(("prediction", "is_zero_snr"), ENDS)
@pytest.mark.parametrize("steps", [1, 2, 4, 8, [800], [999, 500, 7]])
def test_trajectory_consistency_equals_diffusers(steps: int | list[int], prediction: str, is_zero_snr: bool, eta: float) -> None:
    scheduler = diffusers.TCDScheduler(**CONFIG, prediction_type=prediction, rescale_betas_zero_snr=is_zero_snr)
    scheduler.step = partial(scheduler.step, eta=eta)  # as diffusers' pipelines call it
    given = {"steps": steps} if isinstance(steps, int) else {"steps": len(steps), "timesteps": steps}
    _equal(tcd_table(_schedule(prediction, is_zero_snr=is_zero_snr), eta=eta, **given), scheduler, steps)


@pytest.mark.parametrize("shift", [1.0, 3.0])
@pytest.mark.parametrize("steps", [1, 2, 4, 8])
def test_a_model_of_flow_matching_takes_the_steps_of_diffusers_flow_scheduler(steps: int, shift: float) -> None:
    table = ed_table(Schedule(alphas=(), prediction="flow_prediction", shift=shift), steps=steps)
    scheduler = FlowMatchEulerDiscreteScheduler(shift=shift)
    _equal(table, scheduler, steps)
    partly = flow_table(Schedule(alphas=(), prediction="flow_prediction", shift=shift), steps=8, strength=0.5)
    scheduler.set_timesteps(8)
    latent, noise = torch.randn(SHAPE), torch.randn(SHAPE)
    expected = scheduler.scale_noise(latent, scheduler.timesteps[4:5], noise)
    torch.testing.assert_close(partly.start.latent * latent + partly.start.noise * noise, expected, atol=1e-5, rtol=1e-5)


def test_trailing_steps_begin_with_the_noisiest_and_leading_ones_do_not() -> None:
    assert spaced_timesteps(4, "trailing") == [999, 749, 499, 249]
    assert spaced_timesteps(4, "leading") == [751, 501, 251, 1]
    assert spaced_timesteps(1, "trailing") == [999]


@pytest.mark.parametrize("spacing", SPACINGS)
def test_any_number_of_steps_is_spaced_as_by_diffusers(spacing: str) -> None:
    scheduler = EulerDiscreteScheduler(**CONFIG, timestep_spacing=spacing, steps_offset=1)
    for steps in range(1, 101):
        scheduler.set_timesteps(steps)
        if len(scheduler.timesteps) == steps:
            assert spaced_timesteps(steps, spacing) == scheduler.timesteps.tolist()
        else:  # a rounding error of diffusers' own: a step at -1
            with raising(UserError, steps, len(scheduler.timesteps)):
                spaced_timesteps(steps, spacing)


def test_the_spacing_of_a_scheduler_that_names_none_is_diffusers_default() -> None:
    for name, spacing in DEFAULT_SPACING.items():
        options = inspect.signature(getattr(diffusers, name)).parameters
        assert "timestep_spacing" not in options or options["timestep_spacing"].default == spacing, name


def test_noise_of_a_start_without_signal_tells_no_image() -> None:
    schedule = _schedule("epsilon", is_zero_snr=True)
    for table in (partial(ed_table, spacing="trailing"), partial(ddim_table, spacing="trailing"), lcm_table):
        with raising(UserError, "epsilon", "zero terminal SNR"):
            table(schedule, steps=4)
    assert ddim_table(schedule, steps=4, spacing="leading").timesteps[0] == 751


@pytest.mark.parametrize("alphas", [(), (0.9,), (*[0.9] * 999, 0.95), (*[0.9] * 999, float("nan")), (0.0, *[0.0] * 999)])
def test_noise_levels_that_do_not_fall_are_refused(alphas: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="noise levels"):
        Schedule(alphas=alphas)


def test_the_teacher_of_a_model_of_flow_matching_takes_100_euler_steps() -> None:
    schedule = Schedule(alphas=(), prediction="flow_prediction", shift=3.0)
    teacher = teacher_table(schedule)
    assert len(teacher.steps) == 100
    assert teacher == ed_table(schedule, steps=100)


@pytest.mark.parametrize("prediction", [*PREDICTIONS, "flow_prediction"])
def test_what_a_unet_shall_predict_leads_back_to_the_image(prediction: str) -> None:
    """From a sample made of an image and noise, a perfect prediction takes one step to the image."""
    is_flow = prediction == "flow_prediction"
    schedule = Schedule(alphas=(), prediction=prediction) if is_flow else _schedule(prediction, final_alpha=1.0)
    latent, noise = torch.randn(SHAPE), torch.randn(SHAPE)
    table = ed_table(schedule, steps=1) if is_flow else ddim_table(schedule, steps=1, spacing="trailing")
    (t,) = table.timesteps
    sample, target = (a * latent + b * noise for a, b in schedule.noised(t))
    (step,) = table.steps
    torch.testing.assert_close(step.x * sample + step.eps[0] * target, latent, atol=1e-4, rtol=1e-4)


def test_strength_keeps_the_last_part_of_the_schedule() -> None:
    full, part = ddim_table(SCHEDULE, steps=100), ddim_table(SCHEDULE, steps=100, strength=0.7)
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
    table = make(SCHEDULE, steps=8, strength=strength, is_image_to_image=True)
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
    lcm, ed = (make(SCHEDULE, steps=4, is_image_to_image=True).start for make in (lcm_table, ed_table))
    assert (lcm.latent, lcm.noise) == pytest.approx((alpha_bar[999] ** 0.5, (1 - alpha_bar[999]) ** 0.5), rel=1e-5)
    assert (ed.latent, ed.noise) == pytest.approx((1.0, ((1 - alpha_bar[751]) / alpha_bar[751]) ** 0.5), rel=1e-5)
    assert lcm.latent > 0.06


def test_what_has_no_image_to_mix_starts_from_noise_alone() -> None:
    for make in (lcm_table, ed_table, ddim_table):
        assert make(SCHEDULE, steps=4).start.latent == 0


def test_a_strength_of_which_no_step_is_left_is_refused() -> None:
    with raising(UserError, "0.1", 4):
        ed_table(SCHEDULE, steps=4, strength=0.1)


def _inputs(count: int = 2) -> list[SamplerInput]:
    return [
        SamplerInput(
            denoise=_denoise(torch.tensor(0.2 + 0.1 * k)),
            latent=torch.zeros(SHAPE),
            noise=torch.randn(SHAPE, generator=torch.Generator().manual_seed(k)),
        )
        for k in range(count)
    ]


TEACHER = ddim_table(SCHEDULE, steps=20)


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
    for table in (lcm_table(SCHEDULE, steps=4), ed_table(SCHEDULE, steps=4), ddim_table(SCHEDULE, steps=10)):
        final = run_table(table, _denoise(torch.tensor(0.3)), latent=latent, noise=_noise(10), mask=mask)
        torch.testing.assert_close(final[..., 2:], latent[..., 2:])
        assert not torch.allclose(final[..., :2], latent[..., :2])
