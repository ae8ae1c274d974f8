"""Doctor: this machine, or one device -> what is there and what works, and what to do about the rest."""
