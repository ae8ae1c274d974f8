"""Bad input: families of seeded cases, each something that is wrong and that quadbench is given, with a judge of what it does."""
