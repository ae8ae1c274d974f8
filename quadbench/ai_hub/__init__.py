"""Qualcomm AI Hub: models and jobs -> their products, each model uploaded and each job submitted once."""

from quadbench.ai_hub.client import HostedDevice, HostedModel, Hub, JobStatus, Pace, open_hub
from quadbench.ai_hub.hub_jobs import Jobs, Ledger, compile_options, failure, graph_name, link_options, profile_options

__all__ = [
    "HostedDevice",
    "HostedModel",
    "Hub",
    "JobStatus",
    "Jobs",
    "Ledger",
    "Pace",
    "compile_options",
    "failure",
    "graph_name",
    "link_options",
    "open_hub",
    "profile_options",
]
