"""The web server for people in one lab: live pages and metrics. The server only reads the database and the results folder.

app.py         the web application: errors, sign-in, metrics, the uvicorn server
auth.py        token, cookie, allowed host names, security headers
pages.py       one handler for each page; error pages; live parts; templates
queries.py     data for pages, cached for seconds; pictures; lists of 25
farm_state.py  the farm: devices, hosts, runs, jobs and why they wait; its metrics
"""
