"""OpenRLHF's reward function: edit the URL and the template, name this file as remote_url."""

from steerward.clients.openrlhf import reward_function

reward_func = reward_function(
    "http://127.0.0.1:8000",
    # "chatml" (Qwen), "llama3", "gemma", "mistral"; None for plain prompts.
    template="chatml",
)
