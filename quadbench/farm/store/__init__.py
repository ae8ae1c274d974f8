"""The farm's shared store: artifacts and launch files, in a folder or bucket that all hosts can reach."""
