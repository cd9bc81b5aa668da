"""A person who does not exist: a sculpted head with known pose, mouth and eyes, drawn without a GPU."""
