"""A page that is served anew as soon as this file or its template is saved."""

import os

from flask import Flask, render_template

app = Flask(__name__)
message = "change me and reload the page"


@app.get("/")
def index():
    return render_template("index.html", greeting=os.environ["GREETING"], message=message)
