"""Requests over time: what a service of predicted steps answers, and when."""
