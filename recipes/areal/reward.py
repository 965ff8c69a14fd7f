"""AReaL's reward function: edit the URL."""

from steerward.clients.areal import reward_function

reward = reward_function("http://127.0.0.1:8000", template="chatml")
