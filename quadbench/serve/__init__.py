"""The live web page and its JSON API, which only read the database and the results folder, for people in one lab."""
