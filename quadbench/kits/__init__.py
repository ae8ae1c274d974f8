"""Kits: building verified runtime kits from vendor libraries or public packages, and storing them in the results folder."""
