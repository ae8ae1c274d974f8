"""Serve: the database and the results folder -> a live page and a JSON API that only read, for people in the same lab."""
