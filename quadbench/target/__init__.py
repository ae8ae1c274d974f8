"""Target: what a bundle can be compiled for, and the device profiles that say which phone takes what."""
