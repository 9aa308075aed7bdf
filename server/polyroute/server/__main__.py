"""`python -m polyroute.server` is `polyroute serve`."""

from polyroute.server.cli import serve

if __name__ == "__main__":
    serve(prog_name="polyroute serve")
