"""Runtime kits: building them, verified, from vendor libraries or public packages, and storing them in the results folder."""
