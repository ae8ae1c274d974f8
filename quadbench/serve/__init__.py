"""The web server for people in one lab: live pages and a JSON API. The server only reads the database and the results folder.

app.py            the web application: routes of the API, sign-in, the uvicorn server
auth.py           token, cookie, allowed host names, size limits, security headers
pages.py          one handler for each page; error pages; reports streamed in pieces
queries.py        data for pages, cached for seconds; pictures; lists of 25
api_documents.py  JSON documents: running commands, farm, nights; schemas of all; the farm's metrics
rendering.py      templates, words for device states, live updates to open pages
"""
