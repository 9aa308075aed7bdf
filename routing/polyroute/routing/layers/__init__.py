"""The layers around a backend: each takes the inner service, is one itself, and has one concern; and who looks on."""
