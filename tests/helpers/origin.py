"""Where made-up results of the accelerator's experiment say that they come from."""

DEVICE = {"platform": "cpu", "kind": "cpu", "count": 1, "cpu": "a CPU", "cores": 2, "memory_gib": 8}
ORIGIN = {
    "command": "python -m experiments.accelerator",
    "commit": "0" * 40,
    "python": "3.11",
    "versions": {"jax": "0.10", "flax": "0.12"},
    "device": DEVICE,
}
