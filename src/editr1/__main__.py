"""`python -m editr1`."""

from editr1.cli.main import main

if __name__ == "__main__":
    main()
