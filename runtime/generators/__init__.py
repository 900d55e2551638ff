"""What makes pictures, differentiably: one file per generator.

A generator is used from Python, with :func:`~minddiffuser.runtime.refine.adam.refine`. The commands reach the diffusion
generator alone, by ``Backend.generator``: another one takes other features than context and latent, and so a backend
of its own.
"""
