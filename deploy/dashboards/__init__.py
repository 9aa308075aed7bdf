"""Grafana dashboards, made by code: `python -m deploy.dashboards FOLDER` writes them as JSON."""
