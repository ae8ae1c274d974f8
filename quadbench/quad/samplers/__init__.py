"""Samplers: diffusion samplers as tables of coefficients, one file per algorithm (docs/formats.md, "Sampler tables").

table.py     coefficients of a sampler, the loop that runs them, strength
schedule.py  noise levels, prediction and time steps, from a model's scheduler configuration
lcm.py       latent consistency sampling, as diffusers' LCMScheduler
ed.py        Euler discrete sampling, as diffusers' EulerDiscreteScheduler
ddim.py      DDIM, as diffusers' DDIMScheduler; the teacher of OLSS
tcd.py       trajectory consistency sampling, as diffusers' TCDScheduler
olss.py      OLSS, fitted to a task
"""
