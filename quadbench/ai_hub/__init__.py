"""Access to Qualcomm AI Hub: upload each model once, submit each job once, and fetch the results."""
