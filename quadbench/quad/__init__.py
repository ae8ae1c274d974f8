"""Quad: Recipe -> Bundle. The only stage that imports torch; `sources` and `inputs` do without, so that reuse is quick."""
