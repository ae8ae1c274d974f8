"""OLSS: optimal linear subspace search (Duan et al. 2023, arXiv 2305.14677), which fits a short sampler to a DDIM trajectory.

Each step is the least-squares combination of the start and all predictions so far that comes closest to the teacher's trajectory.
Unlike in the paper, these are predictions at the table's own samples, not at the teacher's, so that a step corrects the error of
earlier steps. Coefficients fitted to the teacher's predictions would carry that error on and enlarge it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from quadbench.quad.samplers import table

SEARCH_ROUNDS = 30


@dataclass(frozen=True, kw_only=True)
class SamplerInput:
    """A calibration input for fitting a sampler. `denoise` runs the U-Net. Latent and noise: (1, 4, h, w); mask: (1, 1, h, w)."""

    denoise: table.Denoise
    latent: torch.Tensor
    noise: torch.Tensor
    mask: torch.Tensor | None = None

    def start(self, blend: table.Blend) -> torch.Tensor:
        """Return the sample (1, 4, h, w) from which the sampler starts: `blend` weighs the latent and the noise."""
        return blend.latent * self.latent + blend.noise * self.noise

    def keep(self, x: torch.Tensor, known: table.Blend) -> torch.Tensor:
        """Return x (1, 4, h, w). Where a mask is 0, replace x by `known.latent` * latent + `known.noise` * noise."""
        return x if self.mask is None else self.mask * x + (1 - self.mask) * self.start(known)

    def fitted(self, x: torch.Tensor) -> torch.Tensor:
        """Return the values of x to be fitted, flattened to float64 (n,): those inside the mask, or all without a mask."""
        return x.double().flatten() if self.mask is None else x[(self.mask > 0).expand_as(x)].double()


@dataclass(frozen=True, kw_only=True)
class TeacherTrajectory:
    """The teacher sampler's run over all inputs: samples x (T + 1, n) and predictions eps (T, n) for n fitted values, float64."""

    x: torch.Tensor
    eps: torch.Tensor


def olss_table(teacher: table.SamplerTable, inputs: Sequence[SamplerInput], *, steps: int) -> table.SamplerTable:
    """Fit a sampler of at most `steps` steps to the DDIM teacher's samples on all inputs. Return the fitted sampler's table. The
    table has fewer than `steps` steps if additional steps would not lower the largest MSE of a fitted step.

    `fit_error` is the root-mean-square distance of the table's final sample from the teacher's, over all inputs.
    """
    runs = [_run(teacher, one) for one in inputs]
    trajectory = TeacherTrajectory(x=torch.cat([x for x, _ in runs], 1), eps=torch.cat([eps for _, eps in runs], 1))
    path = _search_path(_reduced(trajectory), steps)
    fitted, mean_square = _fit(teacher, inputs, trajectory, path)
    return table.SamplerTable(
        scheme="olss",
        timesteps=tuple(teacher.timesteps[i] for i in path),
        start=teacher.start,
        steps=fitted,
        fit_error=math.sqrt(mean_square),
    )


def _run(teacher: table.SamplerTable, sampler_input: SamplerInput) -> tuple[torch.Tensor, torch.Tensor]:
    """Run the teacher sampler's T steps on one input. Return samples (T + 1, n) and noise predictions (T, n) of n values."""
    x = sampler_input.start(teacher.start)
    samples, predictions = [sampler_input.fitted(x)], []
    for i, step in enumerate(teacher.steps):
        eps = sampler_input.denoise(i, x)
        x = sampler_input.keep(step.x * x + step.eps[i] * eps, step.known)
        samples.append(sampler_input.fitted(x))
        predictions.append(sampler_input.fitted(eps))
    return torch.stack(samples), torch.stack(predictions)


def _fit(
    teacher: table.SamplerTable, inputs: Sequence[SamplerInput], trajectory: TeacherTrajectory, path: Sequence[int]
) -> tuple[tuple[table.Step, ...], float]:
    """Fit steps that start at the teacher steps in `path`. Return the steps and the final sample's mean square error."""
    seen = [[one.start(teacher.start)] for one in inputs]  # by input: the start, then all predictions
    samples = [start for (start,) in seen]
    steps, mean_square = [], 0.0
    for i, end in zip(path, [*path[1:], len(teacher.steps)], strict=True):
        for k, one in enumerate(inputs):
            seen[k].append(one.denoise(i, samples[k]))
        basis = torch.cat([torch.stack([g.fitted(x) for x in s], 1) for g, s in zip(inputs, seen, strict=True)])
        coefficients, mean_square = _least_squares(basis, trajectory.x[end])
        known = teacher.steps[end - 1].known
        steps.append(table.Step(x_start=coefficients[0], eps=tuple(coefficients[1:]), known=known))
        samples = [
            g.keep(sum(c * x for c, x in zip(coefficients, s, strict=True)), known) for g, s in zip(inputs, seen, strict=True)
        ]
    return tuple(steps), mean_square


def _least_squares(basis: torch.Tensor, target: torch.Tensor) -> tuple[list[float], float]:
    """Return the coefficients of the basis (n, k) that come closest to the target (n,), and the mean square error."""
    solution = torch.linalg.lstsq(basis, target[:, None], driver="gelsd").solution[:, 0]
    return [float(c) for c in solution], float((basis @ solution - target).square().mean())


def _reduced(trajectory: TeacherTrajectory) -> TeacherTrajectory:
    """Compress a trajectory to at most 2T + 1 values per sample, by QR decomposition. Least-squares errors stay equal."""
    length, count = trajectory.eps.shape
    vectors = torch.cat([trajectory.x, trajectory.eps]).T  # (n, 2T + 1)
    r = torch.linalg.qr(vectors, mode="r").R
    r = r * math.sqrt(len(r) / count)  # makes means over its rows equal to means over the n values
    return TeacherTrajectory(x=r[:, : length + 1].T, eps=r[:, length + 1 :].T)


def _search_path(trajectory: TeacherTrajectory, steps: int) -> list[int]:
    """Return indices of at most `steps` teacher steps where fitted steps start. Minimize the steps' largest MSE by bisection."""
    length = len(trajectory.eps)
    if steps >= length:
        return list(range(length))
    largest = float(trajectory.x.square().mean(1).max())  # the mean square of a sample, which no step's error exceeds
    low, high, best = 0.0, largest, _greedy_path(trajectory, math.inf)
    for _ in range(SEARCH_ROUNDS):
        bound = (low + high) / 2
        path = _greedy_path(trajectory, bound)
        if len(path) <= steps:
            high, best = bound, path
        else:
            low = bound
    return best


def _greedy_path(trajectory: TeacherTrajectory, bound: float) -> list[int]:
    """Return indices of teacher steps at which fitted steps start. Lengthen each fitted step while its MSE is at most `bound`."""
    path, i, length = [0], 0, len(trajectory.eps)
    while True:
        basis = torch.stack([trajectory.x[i], *trajectory.eps[path]], 1)
        errors = {j: _least_squares(basis, trajectory.x[j])[1] for j in range(i + 2, length + 1)}
        i += 1
        while i + 1 in errors and errors[i + 1] <= bound:  # errors grow with distance; noise in them must not open a gap
            i += 1
        if i == length:
            return path
        path.append(i)
