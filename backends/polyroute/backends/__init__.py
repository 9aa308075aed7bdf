"""What runs models: worker processes here, and peers over HTTP."""
