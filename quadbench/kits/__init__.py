"""Kits: libraries that an operator brings -> a runtime kit, verified, in the results folder."""
