"""OLSS: optimal linear subspace search (Duan et al. 2023, arXiv 2305.14677): a DDIM trajectory -> a table of few steps.

Each step is the least-squares combination of the start and all predictions so far that lands nearest to the teacher's trajectory.
"""

import math
from dataclasses import dataclass

import torch

from quadbench.quad.samplers.table import Blend, Denoise, Step, Table, executed_steps, last_only

TEACHER_STEPS = 100
SEARCH_ROUNDS = 30


@dataclass(frozen=True, kw_only=True)
class Trajectory:
    """A teacher's run over several inputs: x (T + 1, n) and eps (T, n), flattened to n values a step, float64."""

    x: torch.Tensor
    eps: torch.Tensor


def ddim_table(
    alphas_cumprod: torch.Tensor, *, steps: int = TEACHER_STEPS, strength: float = 1.0, steps_offset: int = 1
) -> Table:
    """DDIM with eta 0 (Song et al. 2020, arXiv 2010.02502, eq. 12), equal to diffusers' DDIMScheduler: the teacher."""
    spacing = len(alphas_cumprod) // steps
    timesteps = [i * spacing + steps_offset for i in reversed(range(steps))][steps - executed_steps(steps, strength) :]
    alphas = [*(float(alphas_cumprod[t]) for t in timesteps), float(alphas_cumprod[0])]
    table_steps = []
    for i in range(len(timesteps)):
        a, a_next = alphas[i], alphas[i + 1]
        is_last = i == len(timesteps) - 1
        table_steps.append(
            Step(
                x=math.sqrt(a_next / a),
                eps=last_only(i, math.sqrt(1 - a_next) - math.sqrt(a_next / a) * math.sqrt(1 - a)),
                known=Blend(latent=1.0, noise=0.0) if is_last else Blend(latent=math.sqrt(a_next), noise=math.sqrt(1 - a_next)),
            )
        )
    start = (
        Blend(latent=0.0, noise=1.0) if strength == 1.0 else Blend(latent=math.sqrt(alphas[0]), noise=math.sqrt(1 - alphas[0]))
    )
    return Table(scheme="ddim", timesteps=tuple(float(t) for t in timesteps), start=start, steps=tuple(table_steps))


def record_trajectory(
    table: Table, denoise: Denoise, *, latent: torch.Tensor, noise: torch.Tensor, mask: torch.Tensor | None = None
) -> Trajectory:
    """Run the teacher's table on one input and keep every sample and prediction.

    When inpainting, only of what is replaced: the rest is set after each step, whatever the sampler makes of it.
    """
    x = table.start.latent * latent + table.start.noise * noise[:1]
    samples, predictions = [x], []
    for i, step in enumerate(table.steps):
        predictions.append(denoise(i, x))
        x = step.x * x + step.eps[i] * predictions[i]
        if mask is not None:
            x = mask * x + (1 - mask) * (step.known.latent * latent + step.known.noise * noise[:1])
        samples.append(x)
    fitted = torch.ones_like(x, dtype=torch.bool) if mask is None else (mask > 0).expand_as(x)
    flat = [torch.stack([tensor[fitted].double() for tensor in tensors]) for tensors in (samples, predictions)]
    return Trajectory(x=flat[0], eps=flat[1])


def joined(trajectories: list[Trajectory]) -> Trajectory:
    """Several inputs as one: their values side by side."""
    return Trajectory(x=torch.cat([t.x for t in trajectories], 1), eps=torch.cat([t.eps for t in trajectories], 1))


def olss_table(teacher: Table, trajectory: Trajectory, *, steps: int) -> Table:
    """Fit `steps` steps to the trajectory. Where fewer reach the end at the lowest error, the table is shorter.

    `fit_error` is the root-mean-square distance of the last fitted sample from the teacher's, over all inputs.
    """
    fit = _Fit(trajectory)
    path = _search_path(fit, steps)
    fitted = []
    for k in range(len(path)):
        end = path[k + 1] if k + 1 < len(path) else fit.length
        coefficients, _ = fit.solve([fit.x(0), *(fit.eps(i) for i in path[: k + 1])], fit.x(end))
        fitted.append(Step(x_start=coefficients[0], eps=tuple(coefficients[1:]), known=teacher.steps[end - 1].known))
    _, mean_square = fit.solve([fit.x(0), *(fit.eps(i) for i in path)], fit.x(fit.length))
    return Table(
        scheme="olss",
        timesteps=tuple(teacher.timesteps[i] for i in path),
        start=teacher.start,
        steps=tuple(fitted),
        fit_error=math.sqrt(mean_square),
    )


class _Fit:
    """Least squares over the trajectory's vectors, on the triangular factor of their QR: equal solutions, small systems."""

    def __init__(self, trajectory: Trajectory) -> None:
        self.length = trajectory.eps.shape[0]
        self._count = trajectory.x.shape[1]
        vectors = torch.cat([trajectory.x, trajectory.eps]).T  # (n, 2T + 1)
        self._r = torch.linalg.qr(vectors, mode="r").R

    def x(self, i: int) -> torch.Tensor:
        return self._r[:, i]

    def eps(self, i: int) -> torch.Tensor:
        return self._r[:, self.length + 1 + i]

    def solve(self, basis: list[torch.Tensor], target: torch.Tensor) -> tuple[list[float], float]:
        """Coefficients and the mean square of what remains."""
        matrix = torch.stack(basis, 1)
        solution = torch.linalg.lstsq(matrix, target[:, None], driver="gelsd").solution[:, 0]
        residual = matrix @ solution - target
        return [float(c) for c in solution], float(residual @ residual) / self._count


def _search_path(fit: _Fit, steps: int) -> list[int]:
    """Indices 0 = i_0 < ... of the teacher's steps: bisection on the largest error that one step may make."""
    if steps >= fit.length:
        return list(range(fit.length))
    low, high, best = 0.0, max(1.0, 2 * float(fit.x(0) @ fit.x(0))), _greedy_path(fit, math.inf)
    for _ in range(SEARCH_ROUNDS):
        bound = (low + high) / 2
        path = _greedy_path(fit, bound)
        if len(path) <= steps:
            high, best = bound, path
        else:
            low = bound
    return best


def _greedy_path(fit: _Fit, bound: float) -> list[int]:
    """From each index go as far as one step stays within `bound`; at least one."""
    path, i = [0], 0
    while True:
        basis = [fit.x(i), *(fit.eps(j) for j in path)]
        reachable = [j for j in range(i + 1, fit.length + 1) if j == i + 1 or fit.solve(basis, fit.x(j))[1] <= bound]
        i = _farthest_run(reachable)
        if i == fit.length:
            return path
        path.append(i)


def _farthest_run(reachable: list[int]) -> int:
    """The end of the unbroken run at the beginning: errors grow with distance, noise in them must not open a gap."""
    end = reachable[0]
    for j in reachable[1:]:
        if j != end + 1:
            break
        end = j
    return end
