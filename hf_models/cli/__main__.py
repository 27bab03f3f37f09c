"""`python -m hf_models.cli` is `hf-models`."""

from .program import main

if __name__ == "__main__":
    main()
