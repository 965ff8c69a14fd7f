"""Functions that a task of verifiers plugs in: edit the URL."""

from steerward.clients.verifiers import functions

score, objectives = functions("http://127.0.0.1:8000")
