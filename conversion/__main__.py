"""`python -m hf_models.conversion` is `hf-models convert`."""

from hf_models.cli import convert_main

if __name__ == "__main__":
    convert_main()
