"""`python -m editr1`."""

from editr1.cli.entry import main

if __name__ == "__main__":
    main()
