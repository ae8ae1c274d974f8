"""The live web page and its JSON API for people in one lab. Both only read the database and the results folder."""
