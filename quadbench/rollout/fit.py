"""Fit: a recipe and what shall run it, devices or a target -> what of the recipe that cannot run, at its key."""

from collections.abc import Iterator, Sequence

from quadbench.devices.addresses import AttachedAddress, VirtualAddress, listed_once, parse_address
from quadbench.recipe import Recipe
from quadbench.recipe.precision import W8A16, Mixed
from quadbench.rollout.forecast import kind_at
from quadbench.spec import Problem
from quadbench.target.profile import load_profiles
from quadbench.target.targets import LiteRtTarget, Target


def misfits(recipe: Recipe, addresses: Sequence[str]) -> Iterator[Problem]:
    """Yield what devices cannot run, as far as their addresses say what they are.

    Raises:
        UserError: a text is no address, or asks for a target that its profile lacks.
    """
    known = {profile.name for profile in load_profiles()}
    for text in listed_once(addresses):
        match parse_address(text):
            case VirtualAddress(profile=name) | AttachedAddress(profile=str(name)) if name in known:  # others are serials
                kind = kind_at(text)
                yield from misfits_of_target(recipe, kind.profile.name, kind.target, text)


def misfits_of_target(recipe: Recipe, profile: str | None, target: Target, name: str) -> Iterator[Problem]:
    """Yield what cannot run of a recipe as devices of a profile run it. `name` is what a message calls them."""
    own = recipe.devices.get(profile) if profile else None
    of_devices = own.precision if own else None
    activations = (of_devices or recipe.precision).activations
    fits = isinstance(activations, W8A16) or (isinstance(activations, Mixed) and not activations.int8_percent)
    if isinstance(target, LiteRtTarget) and not fits:
        place = ("devices", str(profile), "precision") if of_devices else ("precision",)
        reason = f"'{name}' runs graphs by LiteRT, for which all activations have 16 bits; expected {{scheme: w8a16}}"
        yield Problem(location=(*place, "activations"), reason=f"{reason}, found {{scheme: {activations.scheme}}}")
