"""Access to Qualcomm AI Hub: upload each model once, submit each job once, and fetch the results.

client.py    configuration and token, requests repeated after transient failures, errors without secrets
hub_jobs.py  ledger of uploads and jobs, waiting for jobs, job options
"""
