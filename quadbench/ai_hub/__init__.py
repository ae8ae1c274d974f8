"""Qualcomm AI Hub: models and jobs -> their products, each model uploaded and each job submitted once."""
