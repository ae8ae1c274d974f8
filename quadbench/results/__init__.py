"""Results: the folder in which everything that quadbench makes lies: where each thing is, how it is written and read again."""
