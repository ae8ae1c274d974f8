"""Samplers: diffusion samplers as tables of coefficients, one file per algorithm (docs/formats.md, "Sampler tables").

table.py  coefficients of a sampler, the loop that runs them, strength
lcm.py    latent consistency sampling, as diffusers' LCMScheduler
ed.py     Euler discrete sampling, as diffusers' EulerDiscreteScheduler
olss.py   OLSS, fitted to a task, and its teacher, DDIM
"""
