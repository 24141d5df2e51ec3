"""Two small models for demonstrations, trained on a CPU: `demo-blip2` and `demo-clip`."""
