"""`quadbench doctor`: check this machine or one device, and say what to do about each problem."""
