"""``python -m wds_real`` is ``wds-real``."""

from wds_real.cli.main import main

if __name__ == "__main__":
    main()
